"""What a ledger holds at one moment, for a report on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from safety import audit, latch, schema
from safety.audit import Head
from safety.budgets import Budget
from safety.latch import Latch


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepState:
    """A sweep's row: which limits bind it (by digest), and whether it is open, frozen or closed."""

    name: str
    policy: str
    state: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A ledger at one moment.

    Attributes:
        head: end of the audit; None where it is empty.
        budgets: of every scope.
        sweeps: by name.
        policies: limits in canonical JSON, by digest.
        killed: the kill switch where it is thrown.
        used: sum over all leases that ended, by resource.
    """

    head: Head | None
    budgets: tuple[Budget, ...]
    sweeps: tuple[SweepState, ...]
    policies: Mapping[str, str]
    killed: Latch | None
    used: Mapping[str, int]


def take(connection: sa.Connection) -> Snapshot:
    """Read all of it within the caller's transaction."""
    sweeps, policies = schema.sweeps, schema.policies
    columns = sweeps.c.name, sweeps.c.policy, sweeps.c.state, sweeps.c.reason
    found = connection.execute(sa.select(*columns).order_by(sweeps.c.name)).mappings()
    limits = connection.execute(sa.select(policies.c.digest, policies.c.limits).order_by(policies.c.digest))
    return Snapshot(
        head=audit.head(connection),
        budgets=_budgets(connection),
        sweeps=tuple(SweepState(**row) for row in found),
        policies={row.digest: row.limits for row in limits},
        killed=latch.standing(connection),
        used=_used(connection),
    )


def _budgets(connection: sa.Connection) -> tuple[Budget, ...]:
    table = schema.budgets
    query = sa.select(table).order_by(table.c.scope, table.c.resource)
    return tuple(Budget(**row) for row in connection.execute(query).mappings())


def _used(connection: sa.Connection) -> dict[str, int]:
    table = schema.leases
    found: dict[str, int] = {}
    for (told,) in connection.execute(sa.select(table.c.used).where(table.c.used != "")):
        for resource, amount in json.loads(told).items():
            found[resource] = found.get(resource, 0) + amount
    return found
