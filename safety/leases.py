"""Leases in the ledger: their rows are read, changed and ended here, within the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from safety import audit, budgets, schema
from safety.claim import Claim, Usage
from safety.clock import Clock
from safety.errors import KeyReused, LeaseLost
from safety.lease import OPEN_STATES, Lease, Request

_table = schema.leases
_KINDS = {"settled": "settle", "forfeited": "forfeit", "void": "void"}


def by_key(connection: sa.Connection, key: str) -> Lease | None:
    """The lease of a key."""
    return next(iter(_where(connection, _table.c.key == key)), None)


def of_request(connection: sa.Connection, request: Request) -> Lease | None:
    """The lease that a request has already.

    Raises:
        KeyReused: its key was used for another request.
    """
    known = by_key(connection, request.key)
    if known and (known.digest, known.sweep, known.claim) != (request.digest, request.sweep, request.claim):
        raise KeyReused(f"{request.key}: this key was used for another request")
    return known


def fenced(connection: sa.Connection, lease_id: int, fence: int) -> Lease:
    """The lease that a holder shows its fence for.

    Raises:
        LeaseLost: the fence is stale.
    """
    found = _where(connection, _table.c.id == lease_id)
    if not found or found[0].fence != fence:
        raise LeaseLost(f"lease {lease_id}: fence {fence} is stale")
    return found[0]


def open_ones(connection: sa.Connection, sweep: str | None = None) -> list[Lease]:
    """Leases that hold budget, of one sweep or of all."""
    where: list[Any] = [_table.c.state.in_(OPEN_STATES)]
    if sweep is not None:
        where.append(_table.c.sweep == sweep)
    return _where(connection, *where)


def _where(connection: sa.Connection, *where: Any) -> list[Lease]:
    query = sa.select(_table).where(*where).order_by(_table.c.id).with_for_update()
    rows = connection.execute(query).mappings()
    return [Lease(**{**row, "claim": Claim(**json.loads(row["claim"]))}) for row in rows]


def insert(connection: sa.Connection, clock: Clock, request: Request) -> None:
    """Write a reserved lease and hold its charges."""
    claim = request.claim.as_dict()
    row = {"key": request.key, "digest": request.digest, "sweep": request.sweep, "state": "reserved"}
    inserted = connection.execute(_table.insert().values(**row, claim=json.dumps(claim)))
    lease = int((inserted.inserted_primary_key or [0])[0])
    budgets.hold(connection, lease, request.sweep, request.claim.charges())
    detail = {"digest": request.digest, "claim": claim}
    audit.note(connection, clock, "reserve", sweep=request.sweep, key=request.key, detail=detail)


def change(connection: sa.Connection, lease: Lease, **values: object) -> None:
    """Write fields of a lease's row."""
    connection.execute(_table.update().where(_table.c.id == lease.id).values(**values))


def begin(connection: sa.Connection, clock: Clock, lease: Lease, holder: str, ttl_ms: int) -> None:
    """Make a reserved lease active under its next fence."""
    now, fence = clock.monotonic_ms(), lease.fence + 1
    times = {"began_ms": now, "deadline_ms": now + ttl_ms, "boot": clock.boot}
    change(connection, lease, state="active", fence=fence, holder=holder, **times)
    detail = {"fence": fence, "holder": holder}
    audit.note(connection, clock, "activate", sweep=lease.sweep, key=lease.key, detail=detail)


def extend(connection: sa.Connection, clock: Clock, lease: Lease, ttl_ms: int) -> None:
    """Set an active lease's deadline, counted from now."""
    now = clock.monotonic_ms()
    values: dict[str, object] = {"deadline_ms": now + ttl_ms}
    if lease.boot != clock.boot:
        # this clock can't tell how long the lease has run: all its time counts as used
        values |= {"boot": clock.boot, "began_ms": now - lease.claim.wall_ms}
    change(connection, lease, **values)


def end(
    connection: sa.Connection,
    clock: Clock,
    lease: Lease,
    state: str,
    used: Mapping[str, int],
    *,
    rule: str = "",
    reason: str = "",
) -> dict[str, int]:
    """End a lease: spend what was used, return the rest of its hold; the overrun by resource."""
    overrun = budgets.release(connection, lease.id, used)
    values: dict[str, object] = {"state": state, "fence": lease.fence + (state == "forfeited")}
    change(connection, lease, **values, **({"rule": rule, "reason": reason} if reason else {}))
    detail = {"used": dict(used), **({"reason": reason} if reason else {})}
    audit.note(connection, clock, _KINDS[state], sweep=lease.sweep, key=lease.key, rule=rule, detail=detail)
    return overrun


def cut_short(clock: Clock, lease: Lease, told: Usage) -> Usage:
    """What a trial that died is charged: up to its next report, and its time until now."""
    claim, usage = lease.claim, told.credible(lease.claim)
    elapsed = claim.wall_ms
    if lease.boot == clock.boot:
        elapsed = min(clock.monotonic_ms() - lease.began_ms, claim.wall_ms)
    gpu_ms = -(-claim.gpu_ms * elapsed // max(1, claim.wall_ms))
    return Usage(
        train_flops=min(usage.train_flops, claim.train_flops),
        wall_ms=elapsed,
        gpu_ms=min(max(usage.gpu_ms, gpu_ms), claim.gpu_ms),
        reports=min(usage.reports + 1, claim.reports),
    )
