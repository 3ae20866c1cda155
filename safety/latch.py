"""The cluster's kill switch, as it lies in the ledger: a row that is there until somebody lifts it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from safety import audit, schema
from safety.clock import Clock

_table = schema.latch
# the table holds this row or none
_ROW = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Latch:
    """A thrown kill switch.

    Attributes:
        reason: why it was thrown.
        by: who threw it.
        at_ms: Unix time in milliseconds.
    """

    reason: str
    by: str
    at_ms: int


def standing(connection: sa.Connection) -> Latch | None:
    """The switch as it was thrown first; None where it isn't."""
    row = connection.execute(sa.select(_table)).first()
    return None if row is None else Latch(reason=row.reason, by=row.by, at_ms=row.at_ms)


def throw(connection: sa.Connection, clock: Clock, reason: str, by: str) -> None:
    """Throw the switch; one that is thrown already keeps its first reason, and the audit has both."""
    if standing(connection) is None:
        values = {"id": _ROW, "reason": reason, "by": by, "at_ms": clock.wall_ms()}
        connection.execute(_table.insert().values(**values))
    audit.note(connection, clock, "kill", detail={"reason": reason, "by": by})


def lift(connection: sa.Connection, clock: Clock, reason: str, by: str) -> bool:
    """Lift the switch; whether it was thrown."""
    thrown = connection.execute(_table.delete()).rowcount > 0
    if thrown:
        audit.note(connection, clock, "unkill", detail={"reason": reason, "by": by})
    return thrown
