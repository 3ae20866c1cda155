"""Emergency shutdowns in the ledger: each step is taken once, within the caller's transaction."""

from __future__ import annotations

import json

import sqlalchemy as sa

from safety import audit, schema, succession, sweeps
from safety.approval import NOBODY
from safety.clock import Clock
from safety.emergency import STEPS, Done, Incident, Step, missing
from safety.errors import LedgerError
from safety.latch import readable
from safety.limits import Approval

_table, _steps, _frozen = schema.incidents, schema.incident_steps, schema.incident_sweeps
OPERATOR = "operator"
# what the audit calls each step
KINDS: dict[Step, str] = {
    "frozen": "shut_down",
    "revoked": "shut_down_revoked",
    "saved": "shut_down_saved",
    "reverted": "shut_down_reverted",
    "alerted": "shut_down_alerted",
    "acknowledged": "acknowledge",
    "released": "release",
}


def all_of(connection: sa.Connection) -> list[Incident]:
    """Every shutdown, in order."""
    return [_incident(connection, row) for row in connection.execute(sa.select(_table).order_by(_table.c.id))]


def find(connection: sa.Connection, number: int) -> Incident:
    """A shutdown by its number.

    Raises:
        LedgerError: there is none.
    """
    row = connection.execute(sa.select(_table).where(_table.c.id == number)).first()
    if row is None:
        raise LedgerError(f"incident {number}: not in the ledger; `rsi-ray incidents list` shows them")
    return _incident(connection, row)


def unreleased(connection: sa.Connection) -> list[Incident]:
    """The shutdowns whose lineages may not go on, in order."""
    over = sa.select(_steps.c.incident).where(_steps.c.step == "released")
    query = sa.select(_table).where(_table.c.id.not_in(over)).order_by(_table.c.id)
    return [_incident(connection, row) for row in connection.execute(query).all()]


def standing(connection: sa.Connection, lineage: str) -> Incident | None:
    """The shutdown that keeps a lineage from going on; None where none does."""
    return next((one for one in unreleased(connection) if one.lineage == lineage), None)


def _incident(connection: sa.Connection, row: sa.Row[tuple[object, ...]]) -> Incident:
    query = sa.select(_steps).where(_steps.c.incident == row.id)
    done = [
        Done(step=one.step, at_ms=one.at_ms, by=one.by, told=one.told) for one in connection.execute(query)
    ]
    named = {name: row._mapping[name] for name in ("digest", "lineage", "sweep", "rule", "reason", "by")}
    return Incident(
        number=row.id,
        safe=succession.artifact_of(connection, row.safe),
        done=tuple(sorted(done, key=lambda one: (one.at_ms, STEPS.index(one.step)))),
        **named,
    )


def shut_down(
    connection: sa.Connection,
    clock: Clock,
    lineage: str,
    reason: str,
    by: str,
    *,
    safe: int,
    rule: str = OPERATOR,
    sweep: str = "",
) -> Incident:
    """Freeze a lineage until it is released: its sweeps, and whatever would be opened of it; twice is once.

    Args:
        connection: of the caller's transaction.
        clock: of this host.
        lineage: of one sweep or more.
        reason: for people.
        by: who shuts it down.
        safe: promotion that is the last known safe one; see `emergency.last_safe`.
        rule: that decided.
        sweep: that ran away; one of the lineage if left out.
    """
    known = standing(connection, lineage)
    if known:
        return known
    sweep = sweep or sweeps.names_of_lineage(connection, lineage)[0]
    said = {"reason": readable(reason), "by": readable(by)}
    detail = {"lineage": lineage, "safe": succession.artifact_of(connection, safe), **said}
    audit.note(connection, clock, KINDS["frozen"], sweep=sweep, key=lineage, rule=rule, detail=detail)
    digest = audit.hash_of_newest(connection, KINDS["frozen"])
    approval = json.dumps(_guards(connection, sweep).model_dump())
    row = {"lineage": lineage, "sweep": sweep, "rule": rule, "safe": safe, **said}
    connection.execute(_table.insert().values(**row, digest=digest, approval=approval, cleared=0))
    number = int(connection.scalar(sa.select(sa.func.max(_table.c.id))) or 0)
    _step(connection, clock, number, "frozen", said["by"], "")
    for name in sweeps.shut_down(connection, clock, lineage, said["reason"]):
        connection.execute(_frozen.insert().values(sweep=name, incident=number))
    return find(connection, number)


def _guards(connection: sa.Connection, sweep: str) -> Approval:
    try:
        return sweeps.approval_in_force(connection, sweep)
    except ValueError:  # limits that can't be read keep no lineage from being frozen, and release none
        return NOBODY


def guards(connection: sa.Connection, digest: str) -> Approval | None:
    """Who could approve a release as the lineage was shut down; None where there is no such shutdown."""
    said = connection.scalar(sa.select(_table.c.approval).where(_table.c.digest == digest))
    # it may name fewer than must agree, which no limits could: then nobody releases it
    return None if said is None else Approval.model_construct(**json.loads(said))


def take(
    connection: sa.Connection,
    clock: Clock,
    incident: Incident,
    step: Step,
    by: str,
    told: str = "",
    **more: object,
) -> bool:
    """Take a step; whether it wasn't taken yet.

    Raises:
        LedgerError: another one must be taken before it.
    """
    if incident.step(step):
        return False
    require(incident, step)
    by, told = readable(by), readable(told)
    _step(connection, clock, incident.number, step, by, told)
    detail = {"incident": incident.number, "lineage": incident.lineage, "by": by, **more}
    detail |= {"told": told} if told else {}
    audit.note(connection, clock, KINDS[step], sweep=incident.sweep, key=incident.lineage, detail=detail)
    return True


def require(incident: Incident, step: Step) -> None:
    """Refuse a step before its turn.

    Raises:
        LedgerError: another one must be taken before it.
    """
    before = missing(incident, step)
    if before:
        raise LedgerError(
            f"incident {incident.number}: it can't be {step} before it is {', '.join(before)}; "
            f"`rsi-ray incidents show {incident.number}` says what is left"
        )


def _step(connection: sa.Connection, clock: Clock, number: int, step: Step, by: str, told: str) -> None:
    row = {"incident": number, "step": step, "at_ms": clock.wall_ms(), "by": by, "told": told}
    connection.execute(_steps.insert().values(**row))


def safe_of(connection: sa.Connection, incident: Incident) -> int:
    """The promotion that a lineage is reverted to."""
    return int(connection.scalar(sa.select(_table.c.safe).where(_table.c.id == incident.number)) or 0)


def release(
    connection: sa.Connection, clock: Clock, incident: Incident, reason: str, by: str, request: str = ""
) -> None:
    """Let a lineage go on: what the shutdown froze is closed, and may be opened again.

    Raises:
        LedgerError: a step before it was not taken yet.
    """
    more = {"request": request} if request else {}
    take(connection, clock, incident, "released", by, reason, **more)
    rows = succession.rows_of(connection, incident.lineage)
    mine = _table.update().where(_table.c.id == incident.number)
    connection.execute(mine.values(cleared=rows[-1].id if rows else 0))
    stopped = schema.stopped_lineages
    connection.execute(stopped.delete().where(stopped.c.name == incident.lineage))
    query = sa.select(_frozen.c.sweep).where(_frozen.c.incident == incident.number).order_by(_frozen.c.sweep)
    for name in connection.scalars(query).all():
        sweeps.thaw(connection, clock, name)


def cleared(connection: sa.Connection, lineage: str) -> int:
    """The newest promotion that people had before them as they released a lineage; 0 for none."""
    query = sa.select(sa.func.max(_table.c.cleared)).where(_table.c.lineage == lineage)
    return int(connection.scalar(query) or 0)
