"""Kill drills: what was measured when the switch was thrown on canaries, and whether the last one passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from safety import audit, schema
from safety.clock import Clock
from safety.prepared import Prepared

_table = schema.drills
_LATEST = Prepared(sa.select(_table.c.missed).order_by(_table.c.id.desc()).limit(1))


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


def standing(connection: sa.Connection) -> str:
    """How the latest drill failed; "" where it passed, or where there was none."""
    row = _LATEST.first(connection)
    return "" if row is None else str(row[0])
