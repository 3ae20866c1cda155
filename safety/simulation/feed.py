"""What the database itself tells of each change: by triggers, so that no change can go untold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """A budget's row before and after a statement; nothing was before a new one."""

    scope: str
    resource: str
    held_before: int
    held: int
    spent_before: int
    spent: int
    target_before: int
    target: int
    cap: int


@dataclass(frozen=True, slots=True)
class LeaseChange:
    """A lease's row before and after a statement; `before` is "" for a new one."""

    id: int
    trial: str
    key: str
    before: str
    after: str
    fence: int
    deadline_ms: int
    boot: str
    rule: str


@dataclass(frozen=True, slots=True)
class SweepChange:
    """A sweep's state before and after a statement; `before` is "" for a new one."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class LatchChange:
    """The kill switch was thrown (1), or lifted (0)."""

    thrown: int


@dataclass(frozen=True, slots=True)
class PromotionChange:
    """A champion took another's place."""

    key: str
    sweep: str
    id: int


@dataclass(frozen=True, slots=True)
class RollbackChange:
    """A lineage went back to a promotion, 0 for what it began with."""

    lineage: str
    to: int


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """A lineage was shut down."""

    id: int
    lineage: str
    sweep: str
    digest: str


@dataclass(frozen=True, slots=True)
class StepChange:
    """A step of a shutdown was taken."""

    incident: int
    step: str


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row was added to the audit."""

    seq: int
    kind: str
    sweep: str
    key: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A row was taken out of a table that only grows, or the audit was changed."""

    table: str


Change = (
    BudgetChange
    | LeaseChange
    | SweepChange
    | LatchChange
    | PromotionChange
    | RollbackChange
    | IncidentChange
    | StepChange
    | AuditRow
    | Rewritten
)
KINDS: dict[str, type[Change]] = {
    "budget": BudgetChange,
    "lease": LeaseChange,
    "sweep": SweepChange,
    "latch": LatchChange,
    "promotion": PromotionChange,
    "rollback": RollbackChange,
    "incident": IncidentChange,
    "step": StepChange,
    "audit": AuditRow,
    "rewritten": Rewritten,
}

_VALUES = {
    "budgets": "'budget', new.scope, new.resource, {held}, new.held, {spent}, new.spent, {target}, "
    "new.target, new.cap",
    "leases": "'lease', new.id, new.trial, new.key, {state}, new.state, new.fence, new.deadline_ms, "
    "new.boot, new.rule",
    "sweeps": "'sweep', new.name, {state}, new.state, '', '', '', '', '', ''",
}
_BEFORE = {"held": "0", "spent": "0", "target": "new.target", "state": "''"}


def _trigger(table: str, event: str, values: str) -> str:
    name = f"simulation_{table}_{event.lower()}"
    columns = "place, a, b, c, d, e, f, g, h, i"
    return (
        f"CREATE TRIGGER {name} AFTER {event} ON {table} BEGIN "
        f"INSERT INTO simulation_feed ({columns}) VALUES ({values}); END;\n"
    )


def _padded(*values: str) -> str:
    return ", ".join([*values, *["''"] * (10 - len(values))])


def _triggers() -> str:
    made = ""
    for table, values in _VALUES.items():
        old = {name: f"old.{name}" for name in _BEFORE}
        made += _trigger(table, "INSERT", values.format(**_BEFORE)) + _trigger(
            table, "UPDATE", values.format(**old)
        )
        made += _trigger(table, "DELETE", _padded("'rewritten'", f"'{table}'"))
    made += _trigger("latch", "INSERT", _padded("'latch'", "1")) + _trigger(
        "latch", "DELETE", _padded("'latch'", "0")
    )
    made += _trigger("promotions", "INSERT", _padded("'promotion'", "new.key", "new.sweep", "new.id"))
    made += _trigger("rollbacks", "INSERT", _padded("'rollback'", "new.lineage", 'new."to"'))
    incident = _padded("'incident'", "new.id", "new.lineage", "new.sweep", "new.digest")
    made += _trigger("incidents", "INSERT", incident)
    made += _trigger("incident_steps", "INSERT", _padded("'step'", "new.incident", "new.step"))
    for table in ("promotions", "rollbacks", "incidents", "incident_steps"):
        made += _trigger(table, "DELETE", _padded("'rewritten'", f"'{table}'"))
    made += _trigger("audit", "INSERT", _padded("'audit'", "new.seq", "new.kind", "new.sweep", "new.key"))
    rewritten = _padded("'rewritten'", "'audit'")
    return made + _trigger("audit", "UPDATE", rewritten) + _trigger("audit", "DELETE", rewritten)


# the last trigger makes the ledger's last statement fail, after all others of its transaction
WATCH = (
    "CREATE TABLE simulation_feed (id INTEGER PRIMARY KEY, place, a, b, c, d, e, f, g, h, i);\n"
    "CREATE TABLE simulation_abort (thrown INTEGER);\n"
    "INSERT INTO simulation_abort VALUES (0);\n"
    + _triggers()
    + "CREATE TRIGGER simulation_fails BEFORE INSERT ON audit WHEN (SELECT thrown FROM simulation_abort)\n"
    "BEGIN SELECT RAISE(ABORT, 'injected by the simulation'); END;\n"
)
