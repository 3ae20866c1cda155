"""Budgets in the ledger: how much may be out, and for whom; all amounts are exact integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from safety import schema
from safety.claim import (
    CONCURRENT_PARAMS,
    GPU_MS,
    RESOURCES,
    TRAIN_GFLOP,
    TRIALS,
    WALL_MS,
    Claim,
)
from safety.document import FLOPS_PER_GFLOP, MAX_SIZE
from safety.errors import LooserLimits
from safety.limits import Budgets, Limits
from safety.verdict import Allow, Deny, Hold, Verdict

CLUSTER = "cluster"

_table = schema.budgets


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """One budget: `spent + held <= target`, but for what was out when it was tightened.

    Attributes:
        scope: "cluster", or "sweep:NAME".
        resource: what is counted.
        target: the cap that the limits name; 2^62 where they name none.
        held: promised to trials that are open.
        spent: used for good.
        overrun: used beyond what was held.
    """

    scope: str
    resource: str
    target: int
    cap: int
    held: int
    spent: int
    overrun: int

    @property
    def limited(self) -> bool:
        """Whether the limits name a cap."""
        return self.target < MAX_SIZE

    @property
    def share(self) -> float:
        """Part of the cap that is spent or held, from 0 to 1."""
        return (self.spent + self.held) / self.target if self.target else 1.0


def scopes(sweep: str) -> tuple[str, str]:
    """Scopes whose budgets a sweep draws on."""
    return CLUSTER, f"sweep:{sweep}"


def targets(budgets: Budgets) -> dict[str, int]:
    """Caps by resource, in the ledger's units."""
    wanted = {
        TRAIN_GFLOP: _scaled(budgets.train_flops, divide=FLOPS_PER_GFLOP),
        TRIALS: budgets.trials,
        CONCURRENT_PARAMS: budgets.concurrent_params,
        GPU_MS: _scaled(budgets.gpu_seconds, multiply=1000),
        WALL_MS: _scaled(budgets.wall_seconds, multiply=1000),
    }
    return {resource: MAX_SIZE if cap is None else min(cap, MAX_SIZE) for resource, cap in wanted.items()}


def _scaled(amount: int | None, *, multiply: int = 1, divide: int = 1) -> int | None:
    # caps are rounded down, claims up
    return None if amount is None else amount * multiply // divide


def adopt(connection: sa.Connection, sweep: str, limits: Limits, *, keep: bool = False) -> None:
    """Set the caps of a sweep and tighten the cluster's.

    Args:
        connection: of the caller's transaction.
        sweep: name of the sweep.
        limits: that name the caps.
        keep: leave a cap in force that is lower than the one asked for.

    Raises:
        LooserLimits: a cap above the one in force.
    """
    adopt_cluster(connection, limits, keep=keep)
    _adopt(connection, scopes(sweep)[1], limits.sweep, keep=keep)


def adopt_cluster(connection: sa.Connection, limits: Limits, *, keep: bool = False) -> None:
    """Tighten the cluster's caps; see `adopt`."""
    _adopt(connection, CLUSTER, limits.cluster, keep=keep)


def _adopt(connection: sa.Connection, scope: str, wanted: Budgets, *, keep: bool) -> None:
    known = {budget.resource: budget for budget in _of_scope(connection, scope)}
    for resource, target in targets(wanted).items():
        budget = known.get(resource)
        if budget is None:
            values = {"scope": scope, "resource": resource, "target": target, "cap": target}
            connection.execute(_table.insert().values(**values))
        elif target < budget.target:
            cap = max(target, budget.spent + budget.held)
            connection.execute(_row(scope, resource).values(target=target, cap=cap))
        elif budget.target < target < MAX_SIZE and not keep:
            raise LooserLimits(
                f"{scope} budget {resource}: {target:,} is asked for and {budget.target:,} is in force; "
                "loosening takes an approval: ask for no more, or name another ledger"
            )


def room(connection: sa.Connection, sweep: str, charges: Mapping[str, int]) -> Verdict:
    """Whether the charges fit: Hold while others hold the room, Deny where it is spent."""
    verdict: Verdict = Allow()
    for budget in of_sweep(connection, sweep):
        asked = charges[budget.resource]
        if budget.spent + budget.held + asked <= budget.target:
            continue
        reason = (
            f"{budget.scope} budget {budget.resource}: asked {asked:,}, spent {budget.spent:,}, "
            f"held {budget.held:,}, cap {budget.target:,}"
        )
        if budget.spent + asked > budget.target:
            return Deny(f"budget.{budget.resource}", reason)
        verdict = Hold(f"budget.{budget.resource}", reason)
    return verdict


def hold(connection: sa.Connection, lease: int, sweep: str, charges: Mapping[str, int]) -> None:
    """Hold the charges in both scopes; the database's CHECK has the last word."""
    places = [(scope, resource) for scope in scopes(sweep) for resource in RESOURCES]
    rows = [
        {"lease": lease, "scope": scope, "resource": resource, "amount": charges[resource]}
        for scope, resource in places
    ]
    connection.execute(schema.holds.insert(), rows)
    held = _bound().values(held=_table.c.held + sa.bindparam("b_amount"))
    changes = [_binds(scope, resource, b_amount=charges[resource]) for scope, resource in places]
    connection.execute(held, changes)


def release(connection: sa.Connection, lease: int, used: Mapping[str, int]) -> dict[str, int]:
    """End a lease's holds: spend what was used, return the rest; the overrun by resource."""
    holds = connection.execute(sa.select(schema.holds).where(schema.holds.c.lease == lease)).all()
    overrun: dict[str, int] = {}
    changes, marks = [], []
    for row in holds:
        amount = used.get(row.resource, 0)
        if row.resource == TRIALS:
            amount = min(amount, row.amount)  # a later attempt at a trial holds none
        over = max(0, amount - row.amount)
        if over:
            overrun[row.resource] = over
        changes.append(
            _binds(row.scope, row.resource, b_amount=row.amount, b_spent=amount - over, b_over=over)
        )
        marks.append({"b_lease": lease, "b_scope": row.scope, "b_resource": row.resource, "b_used": amount})
    spent = _bound().values(
        held=_table.c.held - sa.bindparam("b_amount"),
        spent=_table.c.spent + sa.bindparam("b_spent"),
        overrun=sa.case(
            (_table.c.overrun > MAX_SIZE - sa.bindparam("b_over"), MAX_SIZE),  # never beyond 64 bits
            else_=_table.c.overrun + sa.bindparam("b_over"),
        ),
    )
    connection.execute(spent, changes)
    connection.execute(_mark_used(), marks)
    return overrun


def whole(claim: Claim) -> dict[str, int]:
    """What a forfeited lease is charged: all that lasts; parameters train no more."""
    return {**claim.charges(), CONCURRENT_PARAMS: 0}


def of_sweep(connection: sa.Connection, sweep: str) -> list[Budget]:
    """The budgets that a sweep draws on."""
    return [budget for scope in scopes(sweep) for budget in _of_scope(connection, scope)]


def _of_scope(connection: sa.Connection, scope: str) -> list[Budget]:
    query = sa.select(_table).where(_table.c.scope == scope).order_by(_table.c.resource)
    rows = connection.execute(query.with_for_update())
    return [Budget(**row) for row in rows.mappings()]


def _row(scope: str, resource: str) -> Any:
    return _table.update().where(_table.c.scope == scope, _table.c.resource == resource)


def _bound() -> Any:
    where = _table.c.scope == sa.bindparam("b_scope"), _table.c.resource == sa.bindparam("b_resource")
    return _table.update().where(*where)


def _binds(scope: str, resource: str, **amounts: int) -> dict[str, object]:
    return {"b_scope": scope, "b_resource": resource, **amounts}


def _mark_used() -> Any:
    table = schema.holds
    where = (
        table.c.lease == sa.bindparam("b_lease"),
        table.c.scope == sa.bindparam("b_scope"),
        table.c.resource == sa.bindparam("b_resource"),
    )
    return table.update().where(*where).values(used=sa.bindparam("b_used"))
