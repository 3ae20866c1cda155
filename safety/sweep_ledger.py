"""What drivers do with the sweeps of a ledger: open them under their limits, keep them alive, end them."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from safety import endings, evaluations, leases, sweeps
from safety.claim import Usage
from safety.emergencies import Emergencies
from safety.errors import LedgerError
from safety.evaluations import Evaluated
from safety.limits import Limits
from safety.sweeps import Sweep


class SweepLedger(Emergencies):
    """The part of a ledger that sweeps are opened and closed in; `Ledger` adds the leases of their trials.

    Every method is one transaction.

    Args:
        url: SQLAlchemy URL, `sqlite:///path` by default use.
        clock: the clocks of this host.
    """

    def open_sweep(
        self,
        name: str,
        limits: Limits,
        lineage: str | None = None,
        *,
        is_drill: bool = False,
        driver: str = "",
    ) -> Limits:
        """Bind a sweep to its limits, and the cluster's budgets to the tightest asked for so far.

        Of one that exists, what a driver before this one reserved and never began is given back.

        Args:
            name: of the sweep.
            limits: that are asked for.
            lineage: whose history of champions it shares; one of its own where it is None.
            is_drill: whether it is a kill drill's.
            driver: who closes it, until another one opens it; "" for whoever names none.

        Returns:
            The limits in force: those of the ledger where they are tighter than the ones asked for.

        Raises:
            LooserLimits: a new sweep's cap above the cluster's.
            LedgerError: the sweep is frozen, the cluster killed, or the last drill of its switch failed.
        """
        with self._transaction() as connection:
            in_force = sweeps.bind(connection, self._clock, name, limits, lineage, is_drill=is_drill)
            sweeps.change(connection, name, driver=driver)
            endings.void_reserved(connection, self._clock, name, "its driver is gone")
            endings.revoke_over(connection, self._clock, name)
            return in_force

    def sweep(self, name: str) -> Sweep:
        """A sweep's limits and state.

        Raises:
            LedgerError: there is no such sweep.
        """
        with self._transaction() as connection:
            return sweeps.find(connection, name)

    def pulse(self, name: str) -> str:
        """Say that a sweep's driver is alive; answers the sweep's state."""
        with self._transaction() as connection:
            sweeps.see(connection, self._clock, name)
            return sweeps.find(connection, name).state

    def freeze(self, name: str, reason: str) -> None:
        """Admit and renew nothing of a sweep any more. It can't be undone here; twice is once."""
        with self._transaction() as connection:
            sweeps.freeze(connection, self._clock, name, reason)

    def close_sweep(self, name: str, usage: Mapping[str, Usage], driver: str = "") -> None:
        """End a sweep whose workers are dead: void what never began, settle the rest.

        A trial that died between two reports is charged up to its next report, and its time until now; one
        that told more than it held, what it told, which freezes the sweep as in `settle`.

        Args:
            name: the sweep.
            usage: last known usage by the trial's key, not counted where it is an earlier lease's.
            driver: who closes it.

        Raises:
            LedgerError: another driver has opened it since, which the audit says; nothing of it has ended.
        """
        with self._transaction() as connection:
            denial = sweeps.of_another(connection, self._clock, name, driver)
            if not denial:
                self._close(connection, name, usage)
        if denial:  # raised within, its audit row would be rolled back
            raise LedgerError(denial)

    def _close(self, connection: sa.Connection, name: str, usage: Mapping[str, Usage]) -> None:
        endings.void_reserved(connection, self._clock, name, "the sweep was closed")
        for lease in leases.open_ones(connection, name):
            endings.settle_cut_short(connection, self._clock, lease, usage.get(lease.trial, Usage()))
        sweeps.close(connection, self._clock, name)

    # --- what evaluators found

    def attest(self, lease_id: int, fence: int, evaluated: Evaluated) -> None:
        """Write down what an evaluator found under its own lease; twice is once.

        Raises:
            LeaseLost: the fence is stale, or the lease is over, or another evaluation's.
        """
        with self._transaction() as connection:
            lease = leases.fenced(connection, lease_id, fence)
            lineage = sweeps.find(connection, lease.sweep).lineage
            evaluations.attest(connection, self._clock, lease, lineage, evaluated)

    def is_attested(self, sweep: str, record: str) -> bool:
        """Whether an evaluator of a sweep's lineage has said what has this digest.

        Raises:
            LedgerError: there is no such sweep.
        """
        with self._transaction() as connection:
            return evaluations.knows(connection, sweeps.find(connection, sweep).lineage, record)
