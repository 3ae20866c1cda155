"""What a ledger answers of champions: their promotions, and what people are asked and decide of them."""

from __future__ import annotations

import sqlalchemy as sa

from safety import approvals, champions, promotions, sweeps
from safety.approval import Champion, Decision
from safety.approval import Request as ApprovalRequest
from safety.approvals import Asked
from safety.champions import Promoted
from safety.errors import ApprovalRefused
from safety.improvement import Mode, Promotion
from safety.limits import Approval
from safety.oversight import Oversight
from safety.verdict import Verdict


class ChampionLedger(Oversight):
    """The part of a ledger that champions are promoted in; every method is one transaction.

    Args:
        url: SQLAlchemy URL, `sqlite:///path` by default use.
        clock: the clocks of this host.
    """

    # --- promotions

    def judge_improvement(self, sweep: str, old: float, new: float, mode: Mode = "max") -> Verdict:
        """Judge a sweep's best against its lineage's history; see `promotions.judged`."""
        with self._transaction() as connection:
            candidate = promotions.candidate(connection, self._clock, sweep, "", old, new, mode)
            return promotions.judged(connection, self._clock, sweep, candidate)

    def promote(
        self,
        sweep: str,
        key: str,
        old: float,
        new: float,
        mode: Mode = "max",
        champion: Champion | None = None,
        request: str = "",
    ) -> Verdict:
        """Judge and, where it is allowed, record that a champion takes another's place; twice is once.

        Args:
            sweep: that promotes.
            key: of the promotion.
            old: score of the champion before it.
            new: its own score.
            mode: whether a larger or a smaller score is better.
            champion: its artifact, hashed right before, and what else an approval must be for.
            request: digest of the request whose approval is used up, where the limits ask for one.

        Raises:
            KeyReused: the key was used for another promotion.
        """
        with self._transaction() as connection:
            candidate = promotions.candidate(connection, self._clock, sweep, key, old, new, mode)
            return promotions.promote(connection, self._clock, sweep, candidate, champion, request)

    def ask_promotion(
        self, sweep: str, champion: Champion, by: str, about: str, lifts: str = ""
    ) -> ApprovalRequest:
        """Ask people to approve a promotion; see `promotions.ask`."""
        with self._transaction() as connection:
            return promotions.ask(connection, self._clock, sweep, champion, by, about, lifts).request

    def promotions(self, lineage: str) -> list[Promotion]:
        """The promotions of a lineage, in order."""
        with self._transaction() as connection:
            return promotions.of_lineage(connection, lineage)

    def champions(self, lineage: str) -> list[Promoted]:
        """The promotions of a lineage, in order, each with its champion and who approved it."""
        with self._transaction() as connection:
            return champions.of_lineage(connection, lineage)

    # --- approvals

    def decide(self, decision: Decision) -> None:
        """Write an approver's decision down; reject wins over approve, one's own too.

        Raises:
            ApprovalRefused: it doesn't count; the audit says so.
            LedgerError: there is no such request.
        """
        with self._transaction() as connection:
            denial = approvals.decide(connection, self._clock, decision)
        if denial:
            raise ApprovalRefused(denial.reason)

    def requests(self) -> list[tuple[Asked, Verdict]]:
        """Every request for an approval, and whether it is approved now."""
        with self._transaction() as connection:
            return [(asked, self._standing(connection, asked)) for asked in approvals.all_of(connection)]

    def request(self, name: str) -> tuple[Asked, Verdict]:
        """One of them, by its digest or the beginning of it.

        Raises:
            LedgerError: there is none, or there are several.
        """
        with self._transaction() as connection:
            asked = approvals.find(connection, name)
            return asked, self._standing(connection, asked)

    def _standing(self, connection: sa.Connection, asked: Asked) -> Verdict:
        approval = approvals.in_force(connection, asked.request.act)
        return approvals.standing(asked, approval, self._clock.wall_ms())

    def approval(self, sweep: str = "") -> Approval:
        """Who approves for all sweeps, or for the lineage of one."""
        with self._transaction() as connection:
            return sweeps.approval_in_force(connection, sweep)
