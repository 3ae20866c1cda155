"""The champions of a lineage as the ledger has them: what was promoted, and who approved it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from safety import approvals, promotions, succession
from safety.approval import Champion, Decision
from safety.approvals import Asked
from safety.improvement import Promotion


@dataclass(frozen=True, kw_only=True, slots=True)
class Promoted:
    """A promotion, and what became of it.

    Attributes:
        promotion: its scores and its time.
        champion: what was promoted; None where nobody told.
        request: digest of the request whose approval it used up; "" for none.
        decisions: the approvals of that request.
        rolled_back: whether its lineage went back to before it.
    """

    promotion: Promotion
    champion: Champion | None
    request: str = ""
    decisions: tuple[Decision, ...] = ()
    rolled_back: bool = False

    @property
    def approvers(self) -> tuple[str, ...]:
        """Names of those who approved it."""
        return tuple(decision.by for decision in self.decisions)


def of_lineage(connection: sa.Connection, lineage: str) -> list[Promoted]:
    """The promotions of a lineage, in order."""
    used = {asked.used_for: asked for asked in approvals.all_of(connection) if asked.used_for}
    pairs = zip(
        promotions.of_lineage(connection, lineage), succession.rows_of(connection, lineage), strict=True
    )
    return [
        _promoted(promotion, succession.champion_in(row), used.get(f"promotion {row.key}"))
        for promotion, row in pairs
    ]


def _promoted(promotion: Promotion, champion: Champion | None, asked: Asked | None) -> Promoted:
    decisions = asked.decisions if asked else ()
    return Promoted(
        promotion=promotion,
        champion=champion,
        request=asked.request.digest if asked else "",
        decisions=tuple(one for one in decisions if one.answer == "approve"),
        rolled_back=promotion.rolled_back,
    )
