"""What people decide over a ledger: its limits, and its kill switch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import sqlalchemy as sa

from safety import (
    approvals,
    audit,
    budgets,
    drills,
    endings,
    latch,
    leases,
    sweeps,
    versions,
)
from safety.approval import NOBODY, Act, require_reachable
from safety.approvals import Asked
from safety.clock import Clock, system_clock
from safety.drills import Canary
from safety.identity import Identity
from safety.latch import Latch
from safety.lease import KILLED
from safety.limits import Approval, Limits
from safety.transactions import Transactions
from safety.verdict import Allow, Verdict
from safety.versions import Version


class Oversight:
    """The part of a ledger that people decide; those below it add what drivers and workers ask.

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

    def reconnect(self) -> None:
        """Use no connection of now again, once this thread's transaction is over."""
        self._transactions.reconnect()

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
            LedgerError: too few of its approvers are named by the open sweeps' limits too.
        """
        with self._transaction() as connection:
            was_reachable = sweeps.approval_in_force(connection).is_reachable
            version = versions.add(connection, self._clock, limits, by, identity)
            if was_reachable:
                require_reachable(sweeps.approval_in_force(connection))
            # a later version is no looser than the one before, and a sweep may have lowered a cap since
            budgets.adopt_cluster(connection, limits, keep=version.number > 1)
            for name in sweeps.all_names(connection):
                budgets.adopt(connection, name, sweeps.find(connection, name).limits, keep=True)
                endings.revoke_over(connection, self._clock, name)
            return version

    def loosen(self, limits: Limits, by: str, identity: Identity | None = None) -> Version:
        """Bind every sweep to these limits, which allow more than the version in force, if that is approved.

        What is not approved is asked for. A sweep's own limits still hold where they are tighter.

        Args:
            limits: looser than the version in force in one field at least.
            by: who asks for it.
            identity: signs the version.

        Raises:
            ApprovalMissing: it is asked for now, or was, and not approved.
            LooserLimits: there is no version that names approvers.
            LedgerError: nothing in them is looser, or too few of its approvers are left.
        """
        with self._transaction() as connection:
            last = versions.newest(connection)
            act = versions.loosening(last, limits)
            asked, verdict = self._allow(connection, act, by, limits.canonical, f"version {act.generation}")
            if isinstance(verdict, Allow):
                version = versions.add(connection, self._clock, limits, by, identity, asked.request.digest)
                require_reachable(sweeps.approval_in_force(connection))
                self._adopt_looser(connection, last.parsed if last else limits, limits)
                return version
        raise approvals.missing(asked, verdict)

    def _adopt_looser(self, connection: sa.Connection, before: Limits, limits: Limits) -> None:
        strictest = sweeps.strictest(connection) or limits
        # nobody approved that the other caps rise, which a sweep that is closed may have lowered
        raised = budgets.raised(before.cluster, limits.cluster)
        budgets.loosen(connection, budgets.CLUSTER, strictest.cluster, raised)
        raised = budgets.raised(before.sweep, limits.sweep)
        for name in sweeps.all_names(connection):
            own = sweeps.find(connection, name).limits.sweep
            budgets.loosen(connection, budgets.scopes(name)[1], own, raised)
            endings.revoke_over(connection, self._clock, name)  # it may be tighter in another field

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
            latch.throw(connection, self._clock, reason, by, self._guards(connection))
            held = leases.open_ones(connection)
            for lease in held:
                endings.revoke(connection, self._clock, lease, KILLED, reason)
            return len(held)

    def _guards(self, connection: sa.Connection) -> Approval:
        try:
            return sweeps.approval_in_force(connection)
        except ValueError:  # limits that can't be read keep no switch from being thrown, and lift none
            return NOBODY

    def unkill(self, reason: str, by: str) -> bool:
        """Lift the kill switch; whether it was thrown. What it ended stays ended.

        Where the limits in force name approvers, or did as it was thrown, it is asked for until enough of
        them approve.

        Raises:
            ApprovalMissing: it is asked for now, or was, and not approved.
        """
        with self._transaction() as connection:
            version = versions.newest(connection)
            act = Act(
                kind="unkill",
                # an approval lifts no kill that came after it
                subject=audit.hash_of_newest(connection, "kill"),
                policy=version.digest if version else "",
            )
            thrown = latch.standing(connection) is not None
            if not (thrown and approvals.in_force(connection, act).is_named):
                return latch.lift(connection, self._clock, reason, by)
            asked, verdict = self._allow(connection, act, by, reason, "unkill")
            if isinstance(verdict, Allow):
                return latch.lift(connection, self._clock, reason, by, asked.request.digest)
        raise approvals.missing(asked, verdict)  # within, what was asked would be rolled back

    def _allow(
        self, connection: sa.Connection, act: Act, by: str, about: str, used_for: str
    ) -> tuple[Asked, Verdict]:
        """Ask for an act's approval, and use it up where it is there."""
        approval = approvals.in_force(connection, act)
        asked = approvals.ask(connection, self._clock, act, approval, by, about)
        name = asked.request.digest
        return asked, approvals.use(connection, self._clock, name, act, approval, used_for)

    def killed(self) -> Latch | None:
        """The kill switch as it was thrown; None where it isn't."""
        with self._transaction() as connection:
            return latch.standing(connection)

    def record_drill(self, canaries: Sequence[Canary], target_ms: int, by: str) -> str:
        """Write down what a kill drill measured; how it failed, after which no sweep is opened, or ""."""
        with self._transaction() as connection:
            return drills.record(connection, self._clock, canaries, target_ms, by)
