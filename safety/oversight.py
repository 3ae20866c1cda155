"""What people decide over a ledger: its limits, its kill switch, its champions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import sqlalchemy as sa

from safety import audit, budgets, drills, endings, latch, leases, promotions, sweeps, versions
from safety.clock import Clock, system_clock
from safety.drills import Canary
from safety.identity import Identity
from safety.improvement import Mode, Promotion
from safety.latch import Latch
from safety.lease import KILLED
from safety.limits import Limits
from safety.transactions import Transactions
from safety.verdict import Verdict
from safety.versions import Version


class Oversight:
    """The part of a ledger that people decide; `Ledger` adds what sweeps ask for.

    Every method is one transaction.

    Args:
        url: SQLAlchemy URL, `sqlite:///path` by default use.
        clock: the clocks of this host.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = url
        self._transactions = Transactions(url)
        self._clock = clock or system_clock()

    def close(self) -> None:
        """Give the connections back."""
        self._transactions.close()

    def together(self) -> AbstractContextManager[None]:
        """One transaction for everything that this thread does within; see `Transactions.together`."""
        return self._transactions.together()

    def _transaction(self) -> AbstractContextManager[sa.Connection]:
        return self._transactions.one()

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """One state of the ledger, to read from; it keeps no writer waiting.

        Raises:
            LedgerError: within it, the database can't be read.
        """
        return self._transactions.reading()

    def audit_stream(self) -> Iterator[audit.Row]:
        """All audit rows in order, as `audit.verify` takes them, a page at a time."""
        return audit.stream(self.reading)

    def audit(self) -> list[tuple[int, audit.Entry, str]]:
        """All audit rows in order, as `audit.verify` takes them."""
        with self._transaction() as connection:
            return audit.rows(connection)

    # --- limits

    def tighten(self, limits: Limits, by: str, identity: Identity | None = None) -> Version:
        """Bind every sweep to these limits where they are tighter than its own, running trials too.

        A trial whose claim is over them is renewed no more.

        Args:
            limits: no looser than the version before them in any field.
            by: who asks for it.
            identity: signs the version.

        Raises:
            LooserLimits: the first field that is looser, with both values.
        """
        with self._transaction() as connection:
            version = versions.add(connection, self._clock, limits, by, identity)
            budgets.adopt_cluster(connection, limits)
            for name in sweeps.all_names(connection):
                budgets.adopt(connection, name, sweeps.find(connection, name).limits, keep=True)
                endings.revoke_over(connection, self._clock, name)
            return version

    def versions(self) -> list[Version]:
        """The versions of the limits that bind every sweep, in order."""
        with self._transaction() as connection:
            return versions.all_of(connection)

    # --- the kill switch

    def kill(self, reason: str, by: str) -> int:
        """Throw the kill switch of every sweep: nothing is admitted, begun or renewed until it is lifted.

        Twice is once, and both are in the audit.

        Returns:
            The number of leases that held budget.
        """
        with self._transaction() as connection:
            latch.throw(connection, self._clock, reason, by)
            held = leases.open_ones(connection)
            for lease in held:
                endings.revoke(connection, self._clock, lease, KILLED, reason)
            return len(held)

    def unkill(self, reason: str, by: str) -> bool:
        """Lift the kill switch; whether it was thrown. What it ended stays ended."""
        with self._transaction() as connection:
            return latch.lift(connection, self._clock, reason, by)

    def killed(self) -> Latch | None:
        """The kill switch as it was thrown; None where it isn't."""
        with self._transaction() as connection:
            return latch.standing(connection)

    def record_drill(self, canaries: Sequence[Canary], target_ms: int, by: str) -> str:
        """Write down what a kill drill measured; how it failed, after which no sweep is opened, or ""."""
        with self._transaction() as connection:
            return drills.record(connection, self._clock, canaries, target_ms, by)

    # --- promotions

    def judge_improvement(self, sweep: str, old: float, new: float, mode: Mode = "max") -> Verdict:
        """Judge a sweep's best against its lineage's history; see `promotions.judged`."""
        with self._transaction() as connection:
            candidate = promotions.candidate(connection, self._clock, sweep, "", old, new, mode)
            return promotions.judged(connection, self._clock, sweep, candidate)

    def promote(self, sweep: str, key: str, old: float, new: float, mode: Mode = "max") -> Verdict:
        """Judge and, where it is allowed, record that a champion takes another's place; twice is once.

        Raises:
            KeyReused: the key was used for another promotion.
        """
        with self._transaction() as connection:
            candidate = promotions.candidate(connection, self._clock, sweep, key, old, new, mode)
            return promotions.promote(connection, self._clock, sweep, candidate)

    def promotions(self, lineage: str) -> list[Promotion]:
        """The promotions of a lineage, in order."""
        with self._transaction() as connection:
            return promotions.of_lineage(connection, lineage)
