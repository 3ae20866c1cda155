"""Kill drills: what was measured when the switch was thrown on canaries, and whether the last one passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from safety import audit, schema
from safety.clock import Clock
from safety.prepared import Prepared

_table = schema.drills
_LATEST = Prepared(
    sa.select(_table.c.at_ms, _table.c.target_ms, _table.c.missed, _table.c.by)
    .order_by(_table.c.id.desc())
    .limit(1)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Canary:
    """A process that is there to be killed.

    Attributes:
        node: address of its host.
        kind: what makes it hard to kill.
        latency_ms: from the switch to its death; None where it outlived the wait.
    """

    node: str
    kind: str
    latency_ms: int | None

    def is_in_time(self, target_ms: int) -> bool:
        """Whether it was dead by then."""
        return self.latency_ms is not None and self.latency_ms <= target_ms


@dataclass(frozen=True, kw_only=True, slots=True)
class Drill:
    """A drill that is over.

    Attributes:
        at_ms: Unix time in milliseconds.
        target_ms: from the switch to the last death.
        missed: how it failed; "" where it did not.
        by: who asked for it.
    """

    at_ms: int
    target_ms: int
    missed: str
    by: str


def missed(canaries: Sequence[Canary], target_ms: int) -> str:
    """How a drill failed, in words; "" where every canary died in time."""
    if not canaries:
        return "no canary was started"
    late = [canary for canary in canaries if not canary.is_in_time(target_ms)]
    return "; ".join(
        f"{canary.kind} on {canary.node}: "
        + ("not dead" if canary.latency_ms is None else f"{canary.latency_ms:,} ms")
        for canary in late
    )


def record(
    connection: sa.Connection, clock: Clock, canaries: Sequence[Canary], target_ms: int, by: str
) -> str:
    """Write a drill down, with an audit row for each canary; how it failed."""
    failure = missed(canaries, target_ms)
    values = {"at_ms": clock.wall_ms(), "target_ms": target_ms, "missed": failure, "by": by}
    connection.execute(_table.insert().values(**values))
    for canary in canaries:
        told = {"node": canary.node, "canary": canary.kind, "latency_ms": canary.latency_ms}
        detail = {**told, "target_ms": target_ms, "ok": canary.is_in_time(target_ms), "by": by}
        audit.note(connection, clock, "drill", detail=detail)
    if failure:
        audit.note(connection, clock, "incident", rule="drill", detail={"reason": failure})
    return failure


def latest(connection: sa.Connection) -> Drill | None:
    """The drill that counts; None where there was none."""
    row = _LATEST.first(connection)
    return None if row is None else Drill(at_ms=row[0], target_ms=row[1], missed=row[2], by=row[3])


def standing(connection: sa.Connection) -> str:
    """How the latest drill failed; "" where it passed, or where there was none."""
    drill = latest(connection)
    return "" if drill is None else drill.missed
