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
from safety.prepared import Prepared
from safety.verdict import Allow, Deny, Hold, Verdict

CLUSTER = "cluster"

_table = schema.budgets
_MOST: Any = sa.literal_column(str(MAX_SIZE), schema.Int64)


def _amount(kind: str) -> Any:
    """An amount of each resource, bound as `kind_resource`."""
    by_resource = [
        (
            _table.c.resource == sa.literal_column(f"'{resource}'"),
            sa.bindparam(f"{kind}_{resource}", type_=schema.Int64),
        )
        for resource in RESOURCES
    ]
    return sa.case(*by_resource, else_=sa.literal_column("0", schema.Int64))


_of_both = _table.c.scope.in_([sa.bindparam("cluster"), sa.bindparam("own")])
_OF_SWEEP = Prepared(sa.select(_table).where(_of_both).order_by(_table.c.scope, _table.c.resource))
_OF_SCOPE = Prepared(sa.select(_table).where(_table.c.scope == sa.bindparam("scope")))
_HOLD = Prepared(_table.update().where(_of_both).values(held=_table.c.held + _amount("held")))
_RELEASE = Prepared(
    _table.update()
    .where(_of_both)
    .values(
        held=_table.c.held - _amount("held"),
        spent=_table.c.spent + _amount("spent"),
        overrun=sa.case(
            (_table.c.overrun > _MOST - _amount("over"), _MOST),  # never beyond 64 bits
            else_=_table.c.overrun + _amount("over"),
        ),
    )
)


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
    known = {budget.resource: budget for budget in _budgets(_OF_SCOPE.rows(connection, scope=scope))}
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


def raised(before: Budgets, after: Budgets) -> set[str]:
    """The resources of which more may be used."""
    old, new = targets(before), targets(after)
    return {resource for resource in RESOURCES if new[resource] > old[resource]}


def loosen(connection: sa.Connection, scope: str, wanted: Budgets, resources: set[str]) -> None:
    """Set these caps of a scope to what an approval allows; what is out already stays within them."""
    for budget in _budgets(_OF_SCOPE.rows(connection, scope=scope)):
        if budget.resource not in resources:
            continue
        target = targets(wanted)[budget.resource]
        cap = max(target, budget.spent + budget.held)
        connection.execute(_row(scope, budget.resource).values(target=target, cap=cap))


def room(connection: sa.Connection, sweep: str, charges: Mapping[str, int]) -> Verdict:
    """Whether the charges fit: Hold while others hold the room, Deny where it is spent."""
    verdict: Verdict = Allow()
    for scope, resource, target, _, held, spent, _ in _rows(connection, sweep):
        asked = charges[resource]
        if spent + held + asked <= target:
            continue
        reason = f"{scope} budget {resource}: asked {asked:,}, spent {spent:,}, held {held:,}, cap {target:,}"
        if spent + asked > target:
            return Deny(f"budget.{resource}", reason)
        verdict = Hold(f"budget.{resource}", reason)
    return verdict


def hold(connection: sa.Connection, sweep: str, charges: Mapping[str, int]) -> None:
    """Hold the charges in both scopes; the database's CHECK has the last word."""
    _HOLD.change(connection, **_both(sweep), **_named("held", charges))


def release(
    connection: sa.Connection, sweep: str, held: Mapping[str, int], used: Mapping[str, int]
) -> dict[str, int]:
    """End a hold: spend what was used, return the rest; the overrun by resource."""
    used = {resource: used.get(resource, 0) for resource in RESOURCES}
    used[TRIALS] = min(used[TRIALS], held[TRIALS])  # a later attempt at a trial holds none
    over = {resource: max(0, used[resource] - held[resource]) for resource in RESOURCES}
    spent = {resource: used[resource] - over[resource] for resource in RESOURCES}
    amounts = {**_named("held", held), **_named("spent", spent), **_named("over", over)}
    _RELEASE.change(connection, **_both(sweep), **amounts)
    return {resource: amount for resource, amount in over.items() if amount}


def _named(kind: str, amounts: Mapping[str, int]) -> dict[str, int]:
    return {f"{kind}_{resource}": amounts[resource] for resource in RESOURCES}


def _both(sweep: str) -> dict[str, str]:
    cluster, own = scopes(sweep)
    return {"cluster": cluster, "own": own}


def whole(claim: Claim) -> dict[str, int]:
    """What a forfeited lease is charged: all that lasts; parameters train no more."""
    return {**claim.charges(), CONCURRENT_PARAMS: 0}


def of_sweep(connection: sa.Connection, sweep: str) -> list[Budget]:
    """The budgets that a sweep draws on."""
    return _budgets(_rows(connection, sweep))


def of_scope(connection: sa.Connection, scope: str) -> list[Budget]:
    """The budgets of the cluster or of one sweep."""
    return sorted(_budgets(_OF_SCOPE.rows(connection, scope=scope)), key=lambda budget: budget.resource)


def _budgets(rows: list[Any]) -> list[Budget]:
    # the columns of the table are the fields of a budget
    names = [column.name for column in _table.columns]
    return [Budget(**dict(zip(names, row, strict=True))) for row in rows]


def _rows(connection: sa.Connection, sweep: str) -> list[Any]:
    return _OF_SWEEP.rows(connection, **_both(sweep))


def _row(scope: str, resource: str) -> Any:
    return _table.update().where(_table.c.scope == scope, _table.c.resource == resource)
