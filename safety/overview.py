"""What a ledger binds and what runs under it at one moment, for whoever watches over the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from safety import budgets, drills, incidents, latch, leases, proximity, schema, sweeps, versions
from safety.budgets import CLUSTER, Budget
from safety.drills import Drill
from safety.emergency import Incident
from safety.latch import Latch
from safety.lease import Lease
from safety.proximity import Nearness
from safety.sweeps import Sweep
from safety.versions import Version


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningSweep:
    """A sweep that is not closed.

    Attributes:
        sweep: its state, lineage and the limits in force.
        leases: that hold budget.
        budgets: its own.
        near: how near it has come to its capability ceilings.
        highest: by domain with a ceiling, the highest score of its reports.
    """

    sweep: Sweep
    leases: Sequence[Lease]
    budgets: Sequence[Budget]
    near: Sequence[Nearness]
    highest: Mapping[str, float]

    @property
    def holders(self) -> frozenset[str]:
        """Workers that hold its leases, as `pid@address`."""
        return frozenset(lease.holder for lease in self.leases if lease.holder)


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """A ledger at one moment.

    Attributes:
        killed: the kill switch where it is thrown.
        sweeps: those that are not closed.
        closed: number of the others.
        incidents: shutdowns whose lineages were not released.
        budgets: the cluster's.
        drill: the latest one.
        version: of the limits that bind every sweep, the latest.
    """

    killed: Latch | None
    sweeps: Sequence[RunningSweep]
    closed: int
    incidents: Sequence[Incident]
    budgets: Sequence[Budget]
    drill: Drill | None
    version: Version | None


def overview(connection: sa.Connection) -> Overview:
    """Read all of it within the caller's transaction."""
    closed = schema.sweeps.c.state == "closed"
    names = connection.scalars(sa.select(schema.sweeps.c.name).where(~closed).order_by(schema.sweeps.c.name))
    return Overview(
        killed=latch.standing(connection),
        sweeps=[_running(connection, name) for name in names.all()],
        closed=connection.scalar(sa.select(sa.func.count()).select_from(schema.sweeps).where(closed)) or 0,
        incidents=incidents.unreleased(connection),
        budgets=budgets.of_scope(connection, CLUSTER),
        drill=drills.latest(connection),
        version=versions.newest(connection),
    )


def _running(connection: sa.Connection, name: str) -> RunningSweep:
    return RunningSweep(
        sweep=sweeps.find(connection, name),
        leases=leases.open_ones(connection, name),
        budgets=budgets.of_scope(connection, budgets.scopes(name)[1]),
        near=proximity.nearest(connection, name),
        highest=proximity.highest(connection, name),
    )
