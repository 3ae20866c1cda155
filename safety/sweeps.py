"""Sweeps in the ledger: which limits bind each, and whether it is open, frozen or closed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa

from safety import audit, budgets, drills, latch, schema
from safety.clock import Clock
from safety.errors import LedgerError, LooserLimits
from safety.lease import KILLED
from safety.limits import Limits
from safety.prepared import Prepared

_table, _policies, _thrown = schema.sweeps, schema.policies, schema.latch
_FIND = Prepared(
    sa.select(_table.c.state, _table.c.reason, _policies.c.limits, _thrown.c.reason)
    .join_from(_table, _policies)
    .outerjoin(_thrown, sa.true())
    .where(_table.c.name == sa.bindparam("name"))
)
_SEE = Prepared(
    _table.update()
    .where(_table.c.name == sa.bindparam("sweep"))
    .values(seen_ms=sa.bindparam("now"), boot=sa.bindparam("boot_id"))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A sweep as the ledger knows it: which limits bind it, whether it is open, frozen, closed or killed.

    It is killed, whatever it was, while the cluster's kill switch is thrown.
    """

    name: str
    limits: Limits
    state: str
    reason: str


def find(connection: sa.Connection, name: str) -> Sweep:
    """A sweep.

    Raises:
        LedgerError: there is no such sweep.
    """
    row = _FIND.first(connection, name=name)
    if row is None:
        raise LedgerError(f"sweep {name}: not in the ledger; open it first")
    state, reason, limits, killed = row
    state, reason = (state, reason) if killed is None else (KILLED, killed)
    return Sweep(name=name, limits=_parsed(limits), state=state, reason=reason)


@lru_cache(maxsize=64)
def _parsed(canonical: str) -> Limits:
    return Limits.model_validate_json(canonical)


def bind(
    connection: sa.Connection, clock: Clock, name: str, limits: Limits, *, is_drill: bool = False
) -> None:
    """Open a sweep under its limits, and tighten the cluster's budgets to them.

    Raises:
        LooserLimits: a cap above the one in force, or other limits for a sweep that exists.
        LedgerError: the sweep is frozen, the cluster killed, or its kill switch proven too slow.
    """
    failure = "" if is_drill else drills.standing(connection)
    if failure:
        raise LedgerError(
            f"the last kill drill missed its target ({failure}); nothing begins until `rsi-ray drill` passes"
        )
    thrown = latch.standing(connection)
    if thrown:
        raise LedgerError(f"killed: {thrown.reason}; nothing runs until `rsi-ray unkill` lifts it")
    known = connection.execute(sa.select(_table).where(_table.c.name == name)).first()
    if known and known.policy != limits.digest:
        raise LooserLimits(f"sweep {name}: bound to other limits; give the sweep another name")
    if known and known.state == "frozen":
        raise LedgerError(f"sweep {name}: frozen: {known.reason}")
    if not known:
        _store(connection, limits)
        row = {"name": name, "policy": limits.digest, "state": "open", "seen_ms": 0, "boot": clock.boot}
        connection.execute(_table.insert().values(**row))
    change(connection, name, state="open")
    see(connection, clock, name)
    budgets.adopt(connection, name, limits)
    audit.note(connection, clock, "open_sweep", sweep=name, detail={"policy": limits.digest})


def _store(connection: sa.Connection, limits: Limits) -> None:
    policies = schema.policies
    if not connection.execute(sa.select(policies).where(policies.c.digest == limits.digest)).first():
        connection.execute(policies.insert().values(digest=limits.digest, limits=limits.canonical))


def see(connection: sa.Connection, clock: Clock, name: str) -> None:
    """Write down that the sweep's driver is alive now."""
    _SEE.change(connection, sweep=name, now=clock.monotonic_ms(), boot_id=clock.boot)


def freeze(connection: sa.Connection, clock: Clock, name: str, reason: str) -> None:
    """Freeze a sweep; twice is once."""
    find(connection, name)
    if _change_from(connection, name, ("open", "closed"), state="frozen", reason=reason):
        audit.note(connection, clock, "freeze", sweep=name, detail={"reason": reason})


def close(connection: sa.Connection, clock: Clock, name: str) -> None:
    """Close a sweep that is open; a frozen one stays frozen."""
    find(connection, name)
    if _change_from(connection, name, ("open",), state="closed"):
        audit.note(connection, clock, "close_sweep", sweep=name)


def _change_from(connection: sa.Connection, name: str, states: tuple[str, ...], **values: object) -> bool:
    """Write fields of a sweep that is in one of these states by itself; whether it was."""
    mine = _table.update().where(_table.c.name == name, _table.c.state.in_(states))
    return connection.execute(mine.values(**values)).rowcount > 0


def change(connection: sa.Connection, name: str, **values: object) -> None:
    """Write fields of a sweep's row."""
    connection.execute(_table.update().where(_table.c.name == name).values(**values))
