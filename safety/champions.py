"""The champions of a lineage as the ledger has them: what was promoted, and who approved it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from safety import approvals, promotions, schema
from safety.approval import Champion, Decision
from safety.improvement import Promotion

_table = schema.promotions


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
    query = sa.select(_table).where(_table.c.lineage == lineage).order_by(_table.c.id)
    rows = connection.execute(query).all()
    found = []
    for promotion, row in zip(promotions.of_lineage(connection, lineage), rows, strict=True):
        asked = used.get(f"promotion {promotion.key}")
        decisions = asked.decisions if asked else ()
        found.append(
            Promoted(
                promotion=promotion,
                champion=_champion(row),
                request=asked.request.digest if asked else "",
                decisions=tuple(one for one in decisions if one.answer == "approve"),
                rolled_back=getattr(promotion, "rolled_back", False),
            )
        )
    return found


def _champion(row: sa.Row[tuple[object, ...]]) -> Champion | None:
    names = ("artifact", "parent", "generation", "evidence")
    told = {name: row._mapping[name] for name in names}
    return None if told["artifact"] is None else Champion(**told)
