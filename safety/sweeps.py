"""Sweeps in the ledger: which limits bind each, and whether it is open, frozen or closed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce

import sqlalchemy as sa

from safety import audit, budgets, drills, latch, schema
from safety.approval import require_reachable
from safety.clock import Clock
from safety.errors import LedgerError
from safety.lease import KILLED
from safety.limits import Approval, Budgets, Limits
from safety.names import MOST_OF_A_RUN, plain_name
from safety.prepared import Prepared
from safety.tightening import changed_fields, looser_fields, tightest

_table, _policies, _thrown = schema.sweeps, schema.policies, schema.latch
_everywhere = schema.limit_versions
_newest = sa.select(_everywhere.c.limits).order_by(_everywhere.c.number.desc()).limit(1)
_FIND = Prepared(
    sa.select(
        _table.c.state,
        _table.c.reason,
        _table.c.lineage,
        _policies.c.limits,
        _thrown.c.reason,
        _newest.scalar_subquery(),
    )
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

    Attributes:
        lineage: line of champions that it works on, which other sweeps may share.
    """

    name: str
    limits: Limits
    state: str
    reason: str
    lineage: str


def find(connection: sa.Connection, name: str) -> Sweep:
    """A sweep.

    Raises:
        LedgerError: there is no such sweep.
    """
    row = _FIND.first(connection, name=name)
    if row is None:
        raise LedgerError(f"sweep {name}: not in the ledger; open it first")
    state, reason, lineage, own, killed, everywhere = row
    state, reason = (state, reason) if killed is None else (KILLED, killed)
    limits = _in_force(own, everywhere)
    return Sweep(name=name, limits=limits, state=state, reason=reason, lineage=lineage)


def of_lineage(connection: sa.Connection, lineage: str) -> list[Sweep]:
    """All sweeps of a lineage; whoever changes the lineage within a transaction comes here first."""
    return [find(connection, name) for name in names_of_lineage(connection, lineage)]


def names_of_lineage(connection: sa.Connection, lineage: str) -> list[str]:
    """Their names alone: limits that can't be read keep nobody from ending them."""
    query = sa.select(_table.c.name).where(_table.c.lineage == lineage).order_by(_table.c.name)
    return list(connection.scalars(query))


@lru_cache(maxsize=64)
def _in_force(own: str, everywhere: str | None) -> Limits:
    """A sweep's own limits, or those of all sweeps where they are tighter."""
    limits = Limits.model_validate_json(own)
    return limits if everywhere is None else tightest(limits, Limits.model_validate_json(everywhere))


def strictest(connection: sa.Connection) -> Limits | None:
    """The limits of every sweep and those of each sweep that is open, the strictest of all; None for none."""
    own = sa.select(_policies.c.limits).join(_table).where(_table.c.state == "open").distinct()
    texts = [*connection.scalars(own), *connection.scalars(_newest)]
    return reduce(tightest, [Limits.model_validate_json(text) for text in texts]) if texts else None


def approval_in_force(connection: sa.Connection, sweep: str = "") -> Approval:
    """Who approves for all sweeps, or for one: whom all limits name that bind them, or its lineage."""
    if sweep:
        lineage = find(connection, sweep).lineage
        return reduce(tightest, [one.limits for one in of_lineage(connection, lineage)]).approval
    found = strictest(connection)
    return found.approval if found else Approval()


def all_names(connection: sa.Connection) -> list[str]:
    """Names of all sweeps."""
    return list(connection.scalars(sa.select(_table.c.name).order_by(_table.c.name)))


def bind(
    connection: sa.Connection,
    clock: Clock,
    name: str,
    limits: Limits,
    lineage: str | None = None,
    *,
    is_drill: bool = False,
) -> Limits:
    """Open a sweep under its limits, and tighten the cluster's budgets to them.

    Of a sweep that exists, and of limits that bind every sweep, the tighter of both hold, field by field.

    Args:
        connection: of the caller's transaction.
        clock: of this host.
        name: of the sweep.
        limits: that bind it.
        lineage: line of champions that it works on; one of its own where none is named.

    Returns:
        The limits in force; the audit names what was asked for beyond them.

    Raises:
        LooserLimits: a new sweep's cap above the cluster's.
        LedgerError: the sweep is frozen, of another lineage or of no plain name, its lineage shut down, the
            cluster killed, its kill switch proven too slow, or too few of the approvers are named by the
            other limits too.
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
    if known and known.state == "frozen":
        raise LedgerError(f"sweep {name}: frozen: {known.reason}")
    lineage = _lineage(connection, name, lineage, known.lineage if known else None)
    _store(connection, limits)
    if known:
        _tighten(connection, clock, name, known.policy, limits)
    else:
        _check_name("sweep", name)
        _check_name("lineage", lineage)
        row = {"name": name, "policy": limits.digest, "state": "open", "seen_ms": 0, "boot": clock.boot}
        connection.execute(_table.insert().values(**row, lineage=lineage))
    change(connection, name, state="open")
    see(connection, clock, name)
    require_reachable(approval_in_force(connection))
    require_reachable(approval_in_force(connection, name))
    in_force = find(connection, name).limits
    if not known:
        budgets.adopt_cluster(connection, _asked_of_cluster(limits, in_force))
    budgets.adopt(connection, name, in_force, keep=True)
    audit.note(connection, clock, "open_sweep", sweep=name, detail={"policy": limits.digest})
    looser = looser_fields(in_force, limits)
    if looser:
        detail = {"asked": limits.digest, "policy": in_force.digest, "fields": list(looser)}
        audit.note(connection, clock, "looser_limits", sweep=name, detail=detail)
    return in_force


def _asked_of_cluster(limits: Limits, in_force: Limits) -> Limits:
    """The limits in force with the cluster's caps that a sweep names by itself, and no others."""
    named = {name for name, cap in limits.cluster if cap is not None}
    caps = {name: cap for name, cap in in_force.cluster if name in named}
    return in_force.model_copy(update={"cluster": Budgets(**caps)})


def _check_name(what: str, name: str) -> None:
    try:
        plain_name(name, MOST_OF_A_RUN)
    except ValueError as error:
        raise LedgerError(f"{what} {name!r:.80}: {error}") from None


def _tighten(connection: sa.Connection, clock: Clock, name: str, policy: str, limits: Limits) -> None:
    """Bind a sweep that exists to its limits and to these, field by field to the tighter of both."""
    policies = schema.policies
    known = connection.scalar(sa.select(policies.c.limits).where(policies.c.digest == policy))
    before = Limits.model_validate_json(str(known))
    both = tightest(before, limits)
    if both.digest == policy:
        return
    require_reachable(both.approval)
    _store(connection, both)
    change(connection, name, policy=both.digest)
    detail = {"policy": both.digest, "before": policy, "fields": list(changed_fields(before, both))}
    audit.note(connection, clock, "tighten", sweep=name, detail=detail)


def _lineage(connection: sa.Connection, name: str, asked: str | None, known: str | None) -> str:
    """The lineage of a sweep that may run."""
    lineage = known or asked or name
    if asked not in (None, lineage):
        raise LedgerError(f"sweep {name}: of lineage {lineage}, not {asked}; give the sweep another name")
    stopped = schema.stopped_lineages
    reason = connection.scalar(sa.select(stopped.c.reason).where(stopped.c.name == lineage))
    if reason is not None:
        raise LedgerError(
            f"sweep {name}: its lineage {lineage} was shut down: {reason}; "
            "nothing of it runs until `rsi-ray incidents release` lets it go on"
        )
    return lineage


def shut_down(connection: sa.Connection, clock: Clock, lineage: str, reason: str) -> list[str]:
    """Freeze every sweep of a lineage, and let none be opened; the names of those that weren't frozen yet."""
    stopped = schema.stopped_lineages
    connection.execute(stopped.insert().values(name=lineage, reason=reason))
    names = names_of_lineage(connection, lineage)
    return [name for name in names if _freeze(connection, clock, name, reason)]


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
    if not _freeze(connection, clock, name, reason) and _keep_frozen(connection, name, reason):
        audit.note(connection, clock, "freeze", sweep=name, detail={"reason": reason})


def _freeze(connection: sa.Connection, clock: Clock, name: str, reason: str) -> bool:
    frozen = _change_from(connection, name, ("open", "closed"), state="frozen", reason=reason)
    if frozen:
        audit.note(connection, clock, "freeze", sweep=name, detail={"reason": reason})
    return frozen


def _keep_frozen(connection: sa.Connection, name: str, reason: str) -> bool:
    """Leave a sweep frozen that its lineage's release would have thawed; whether it would."""
    table = schema.incident_sweeps
    kept = connection.execute(table.delete().where(table.c.sweep == name)).rowcount > 0
    if kept:
        change(connection, name, reason=reason)
    return kept


def thaw(connection: sa.Connection, clock: Clock, name: str) -> None:
    """Close a sweep that its lineage's shutdown alone has frozen, so that it may be opened again."""
    table = schema.incident_sweeps
    connection.execute(table.delete().where(table.c.sweep == name))
    change(connection, name, state="closed", reason="")
    detail = {"reason": "its lineage was released"}
    audit.note(connection, clock, "close_sweep", sweep=name, detail=detail)


def of_another(connection: sa.Connection, clock: Clock, name: str, driver: str) -> str:
    """Why a driver may not end a sweep, which is recorded; "" where it is its own."""
    find(connection, name)
    if connection.scalar(sa.select(_table.c.driver).where(_table.c.name == name)) == driver:
        return ""
    reason = f"sweep {name}: opened by another driver, which alone closes it"
    audit.note(connection, clock, "deny", sweep=name, rule="driver", detail={"reason": reason})
    return reason


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
