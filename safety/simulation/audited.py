"""That each change has its row in the audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from safety.simulation.feed import (
    AuditRow,
    Change,
    LatchChange,
    LeaseChange,
    PromotionChange,
    RollbackChange,
    StepChange,
    SweepChange,
)
from safety.simulation.violation import Violated, require

_LEASES_AUDITED = {
    "reserved": "reserve",
    "active": "activate",
    "revoked": "revoke",
    "void": "void",
    "settled": "settle",
    "forfeited": "forfeit",
}
_STEPS_AUDITED = {
    "frozen": "shut_down",
    "revoked": "shut_down_revoked",
    "saved": "shut_down_saved",
    "reverted": "shut_down_reverted",
    "alerted": "shut_down_alerted",
    "acknowledged": "acknowledge",
    "released": "release",
}
_SWEEPS_AUDITED = {"open": "open_sweep", "frozen": "freeze", "closed": "close_sweep"}


def require_audit(changes: Sequence[Change]) -> None:
    """Each change of a lease has its row, and each row its change; what else changes has its row too.

    Raises:
        Violated: a row is missing, or one tells of what wasn't.
    """
    rows = Counter((c.kind, c.key) for c in changes if isinstance(c, AuditRow))
    leases = Counter(_lease_rows(changes))
    told = Counter({row: count for row, count in rows.items() if row[0] in _LEASES_AUDITED.values()})
    for row in (leases - told) or (told - leases):
        raise Violated(f"I6: {row[1]}: {leases[row]} changes and {told[row]} audit rows of {row[0]}")
    sweeps = {(c.kind, c.sweep) for c in changes if isinstance(c, AuditRow)}
    for change in changes:
        _require_row(change, rows, sweeps)


def _require_row(change: Change, rows: Counter[tuple[str, str]], sweeps: set[tuple[str, str]]) -> None:
    if isinstance(change, SweepChange) and change.before != change.after:
        audited = (_SWEEPS_AUDITED[change.after], change.name) in sweeps
        require(audited, "I6", f"{change.name} became {change.after} without an audit row")
    if isinstance(change, LatchChange):
        kind = "kill" if change.thrown else "unkill"
        require((kind, "") in sweeps, "I6", f"the switch was changed without an audit row of {kind}")
    if isinstance(change, PromotionChange):
        require(rows["promote", change.key] == 1, "I6", f"{change.key} was promoted without an audit row")
    if isinstance(change, RollbackChange):
        audited = rows["rollback", change.lineage] == 1
        require(audited, "I6", f"{change.lineage} went back without an audit row")
    if isinstance(change, StepChange):
        audited = _STEPS_AUDITED[change.step] in {kind for kind, _ in sweeps}
        require(audited, "I6", f"a lineage was {change.step} without an audit row")


def _lease_rows(changes: Sequence[Change]) -> list[tuple[str, str]]:
    """Kind and key of the audit rows that these changes must have; a revocation names the trial."""
    return [
        (_LEASES_AUDITED[c.after], c.trial if c.after == "revoked" else c.key)
        for c in changes
        if isinstance(c, LeaseChange) and c.before != c.after
    ]
