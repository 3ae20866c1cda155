"""Leases in the ledger: their rows are read, changed and ended here, within the caller's transaction.

A trial that was paused, changed or restarted gets another lease; its key means the newest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from safety import audit, budgets, schema
from safety.claim import GPU_MS, TRAIN_GFLOP, TRIALS, USED, WALL_MS, Claim, Usage
from safety.clock import Clock
from safety.errors import KeyReused, LeaseLost
from safety.lease import FAILED, KILLED, LOST, OPEN_STATES, REPORTS, Lease, Request, less
from safety.prepared import Prepared, insertion
from safety.verdict import Allow, Deny, Hold, Verdict

_table = schema.leases
_COLUMNS = [column.name for column in _table.columns]


def _found(*where: Any) -> Prepared:
    return Prepared(sa.select(_table).where(*where).order_by(_table.c.id))


_trial, _id = _table.c.trial == sa.bindparam("trial"), _table.c.id == sa.bindparam("lease")
_is_open = _table.c.state.in_([sa.literal_column(f"'{state}'") for state in OPEN_STATES])
_NEWEST = Prepared(sa.select(_table).where(_trial).order_by(_table.c.id.desc()).limit(1))
_ATTEMPTS, _BY_ID = _found(_trial), _found(_id)
_OPEN, _OPEN_OF_SWEEP = _found(_is_open), _found(_is_open, _table.c.sweep == sa.bindparam("sweep"))
_another_boot = sa.bindparam("boot_id", type_=sa.Text)
_OVERDUE = _found(
    _table.c.state.in_([sa.literal_column("'active'"), sa.literal_column("'revoked'")]),
    (_table.c.deadline_ms < sa.bindparam("now")) | (_table.c.boot != _another_boot),
)
_OF_SILENT = Prepared(
    sa.select(_table)
    .join(schema.sweeps)
    .where(
        _table.c.state == sa.literal_column("'reserved'"),
        (schema.sweeps.c.seen_ms < sa.bindparam("until")) | (schema.sweeps.c.boot != _another_boot),
    )
    .order_by(_table.c.id)
)
_INSERT = Prepared(insertion(_table, without=("id",)))
# what a lease begins with, besides what was asked for
_NEW = {
    "state": "reserved", "fence": 0, "holder": "", "deadline_ms": 0, "began_ms": 0, "boot": "", "rule": "",
    "reason": "", "told": "", "used": "",
}  # fmt: skip
# what a forfeited lease was charged beyond what it can have computed, its trial's next attempt isn't charged
PAID_ONCE = (TRAIN_GFLOP, GPU_MS, WALL_MS)
_KINDS = {"settled": "settle", "forfeited": "forfeit", "void": "void"}


def by_key(connection: sa.Connection, key: str) -> Lease | None:
    """The newest lease of a trial's key."""
    row = _NEWEST.first(connection, trial=key)
    return None if row is None else _lease(row)


def attempts(connection: sa.Connection, key: str) -> list[Lease]:
    """All leases of a trial's key, the oldest first."""
    return [_lease(row) for row in _ATTEMPTS.rows(connection, trial=key)]


def of_request(connection: sa.Connection, request: Request) -> Lease | None:
    """The lease that a request has already.

    Raises:
        KeyReused: its key was used for another request.
    """
    known = by_key(connection, request.key)
    if known and (known.digest, known.sweep, known.claim) != (request.digest, request.sweep, request.claim):
        raise KeyReused(f"{request.key}: this key was used for another request")
    return known


def standing(known: Lease, request: Request) -> Verdict | None:
    """What a trial's newest lease says to its wish to run; None where it can have another lease.

    Raises:
        KeyReused: the key is another sweep's.
    """
    if known.sweep != request.sweep:
        raise KeyReused(f"{request.key}: this key was used for another sweep")
    if known.rule not in ("", FAILED, LOST, KILLED):
        return Deny(known.rule, known.reason)
    if known.state in ("active", "revoked"):
        # of a worker that may still compute: a dead actor is no proof that its process is
        return Hold(LOST, f"{known.key}: its lease is {known.state}, until it is settled or forfeited")
    same = (known.digest, known.claim) == (request.digest, request.claim)
    return Allow() if known.state == "reserved" and same else None


def fenced(connection: sa.Connection, lease_id: int, fence: int) -> Lease:
    """The lease that a holder shows its fence for.

    Raises:
        LeaseLost: the fence is stale.
    """
    row = _BY_ID.first(connection, lease=lease_id)
    found = None if row is None else _lease(row)
    if found is None or found.fence != fence:
        raise LeaseLost(f"lease {lease_id}: fence {fence} is stale")
    return found


def open_ones(connection: sa.Connection, sweep: str | None = None) -> list[Lease]:
    """Leases that hold budget, of one sweep or of all."""
    if sweep is None:
        return [_lease(row) for row in _OPEN.rows(connection)]
    return [_lease(row) for row in _OPEN_OF_SWEEP.rows(connection, sweep=sweep)]


def overdue(connection: sa.Connection, clock: Clock) -> list[Lease]:
    """Leases past their deadline that were begun and are not over; all those of another boot."""
    now = {"boot_id": clock.boot, "now": clock.monotonic_ms()}
    return [_lease(row) for row in _OVERDUE.rows(connection, **now)]


def of_silent_sweeps(connection: sa.Connection, clock: Clock, silence_ms: int) -> list[Lease]:
    """Reserved leases of sweeps whose driver was not seen for so long."""
    until = {"boot_id": clock.boot, "until": clock.monotonic_ms() - silence_ms}
    return [_lease(row) for row in _OF_SILENT.rows(connection, **until)]


def _lease(row: Any) -> Lease:
    # the columns of the table are the fields of a lease
    fields = dict(zip(_COLUMNS, row, strict=True))
    fields["claim"] = Claim(**json.loads(fields["claim"]))
    return Lease(**fields)


def reserve(connection: sa.Connection, clock: Clock, request: Request, known: Lease | None) -> Verdict:
    """Write the next attempt of a trial and hold its charges, or say which budget has no room.

    Args:
        connection: in the caller's transaction.
        clock: of this host.
        request: what is asked for.
        known: the trial's newest lease.
    """
    earlier = attempts(connection, request.key) if known else []
    counted = any(lease.state != "void" for lease in earlier)
    paid = earlier[-1].paid if earlier else Counter[str]()
    charges = less({**request.claim.charges(), TRIALS: 0 if counted else 1}, paid)
    verdict = budgets.room(connection, request.sweep, charges)
    if isinstance(verdict, Allow):
        key = f"{request.key}#{len(earlier) + 1}" if earlier else request.key
        _insert(connection, clock, request, key, charges, paid)
    return verdict


def _insert(
    connection: sa.Connection,
    clock: Clock,
    request: Request,
    key: str,
    charges: Mapping[str, int],
    paid: Mapping[str, int],
) -> None:
    claim, credit = request.claim.as_dict(), {"credit": dict(paid)} if paid else {}
    row = {"key": key, "trial": request.key, "digest": request.digest, "sweep": request.sweep}
    values = {**_NEW, **row, "claim": json.dumps(claim), "trials": charges[TRIALS], "credit": _text(paid)}
    _INSERT.change(connection, **values)
    budgets.hold(connection, request.sweep, charges)
    detail = {"digest": request.digest, "claim": claim, **credit}
    audit.note(connection, clock, "reserve", sweep=request.sweep, key=key, detail=detail)


def _text(paid: Mapping[str, int]) -> str:
    return json.dumps(dict(paid)) if paid else ""


def change(connection: sa.Connection, lease: Lease, **values: object) -> None:
    """Write fields of a lease's row."""
    _update(tuple(values)).change(connection, lease=lease.id, **values)


@lru_cache(maxsize=32)
def _update(names: tuple[str, ...]) -> Prepared:
    return Prepared(_table.update().where(_id).values({name: sa.bindparam(name) for name in names}))


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


def hear(connection: sa.Connection, lease: Lease, usage: Usage, number: int = 0) -> None:
    """Keep the most that a trial's reports have told, and how many there were, whatever they tell.

    Args:
        connection: of the caller's transaction.
        lease: as it is now.
        usage: that this report tells.
        number: which one it is, so that it may come twice; 0 where nobody counts: one more than before.
    """
    before = json.loads(lease.told or "{}")
    count = max(before.get(REPORTS, 0), number) if number else before.get(REPORTS, 0) + 1
    told = usage.credible(lease.claim).at_least(Usage(**{name: before.get(name, 0) for name in USED}))
    text = json.dumps({**{name: getattr(told, name) for name in USED}, REPORTS: count})
    if text != lease.told:
        change(connection, lease, told=text)


def revoke(connection: sa.Connection, clock: Clock, lease: Lease, rule: str, reason: str) -> None:
    """Renew an active lease no more."""
    change(connection, lease, state="revoked", rule=rule, reason=reason)
    detail = {"reason": reason}
    audit.note(connection, clock, "revoke", sweep=lease.sweep, key=lease.trial, rule=rule, detail=detail)


def revoke_built(connection: sa.Connection, clock: Clock, lease: Lease, denial: Deny) -> None:
    """Revoke a lease for what was built under it, which is an incident."""
    note = {"sweep": lease.sweep, "key": lease.trial, "rule": denial.rule}
    audit.note(connection, clock, "incident", **note, detail={"reason": denial.reason})
    revoke(connection, clock, lease, denial.rule, denial.reason)


def end(
    connection: sa.Connection,
    clock: Clock,
    lease: Lease,
    state: str,
    used: Mapping[str, int],
    *,
    computed: Mapping[str, int] | None = None,
    rule: str = "",
    reason: str = "",
) -> dict[str, int]:
    """End a lease: spend what was used, return the rest of its hold; the overrun by resource.

    What was charged beyond what can have been `computed` pays for the trial's next attempt: the spent amount
    of a budget never falls, and nothing is counted twice.
    """
    charged = less(used, lease.paid)
    overrun = budgets.release(connection, lease.sweep, lease.charges(), charged)
    fence = lease.fence + (state == "forfeited")
    left = Counter({name: max(used.get(name, 0), lease.paid[name]) for name in PAID_ONCE})
    left -= Counter(used if computed is None else computed)
    # a later attempt at a trial isn't counted as another
    kept = {resource: amount for resource, amount in charged.items() if resource != TRIALS or lease.trials}
    values: dict[str, object] = {"state": state, "fence": fence, "credit": _text(left)}
    values["used"] = json.dumps(kept)
    change(connection, lease, **values, **({"rule": rule, "reason": reason} if reason else {}))
    detail = {"used": charged, **({"reason": reason} if reason else {})}
    audit.note(connection, clock, _KINDS[state], sweep=lease.sweep, key=lease.key, rule=rule, detail=detail)
    return overrun
