"""The cluster's kill switch, as it lies in the ledger: a row that is there until somebody lifts it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa

from safety import audit, schema
from safety.clock import Clock
from safety.limits import Approval
from safety.prepared import Prepared

_table = schema.latch
# the table holds this row or none
_ROW = 1
_STANDING = Prepared(sa.select(_table.c.reason, _table.c.by, _table.c.at_ms))


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
    row = _STANDING.first(connection)
    return None if row is None else Latch(reason=row[0], by=row[1], at_ms=row[2])


def guards(connection: sa.Connection) -> Approval | None:
    """Who could approve that the switch is lifted, as it was thrown; None where it isn't."""
    said = connection.scalar(sa.select(_table.c.approval))
    # it may name fewer than must agree, which no limits could: then nobody lifts it
    return None if said is None else Approval.model_construct(**json.loads(said))


def throw(connection: sa.Connection, clock: Clock, reason: str, by: str, approval: Approval) -> None:
    """Throw the switch; one that is thrown already keeps its first reason, and the audit has both.

    What is no text in them is no reason not to: it is replaced.

    Args:
        connection: of the caller's transaction.
        clock: of this host.
        reason: why it is thrown.
        by: who throws it.
        approval: who may approve that it is lifted, by the limits in force.
    """
    reason, by = readable(reason), readable(by)
    if standing(connection) is None:
        values = {"id": _ROW, "reason": reason, "by": by, "at_ms": clock.wall_ms()}
        connection.execute(_table.insert().values(**values, approval=json.dumps(approval.model_dump())))
    audit.note(connection, clock, "kill", detail={"reason": reason, "by": by})


def readable(said: str) -> str:
    """What is said, with what is no text in it replaced."""
    return said.encode("utf-8", "replace").decode().replace("\0", "?")


def lift(connection: sa.Connection, clock: Clock, reason: str, by: str, request: str = "") -> bool:
    """Lift the switch; whether it was thrown. The audit names the request that was approved for it."""
    thrown = connection.execute(_table.delete()).rowcount > 0
    if thrown:
        told = {"reason": reason, "by": by}
        audit.note(connection, clock, "unkill", detail={**told, "request": request} if request else told)
    return thrown
