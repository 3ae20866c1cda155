"""A ledger's state as plain values that JSON can tell, and as lines that people read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rsi_ray.printable import printable
from safety.budgets import Budget
from safety.clock import Clock
from safety.drills import Drill
from safety.emergency import Incident, pending
from safety.latch import Latch
from safety.lease import Lease
from safety.overview import Overview, RunningSweep
from safety.proximity import Nearness
from safety.report import utc
from safety.versions import Version

# leases of a sweep that are shown to people, those that end next
MOST_LEASES = 20


def status(found: Overview, clock: Clock, *, url: str, kill_file: str | None) -> dict[str, Any]:
    """What a ledger binds and what runs under it.

    Args:
        found: in the ledger.
        clock: of this host; how long a lease of another host's clock has left can't be told.
        url: of the ledger, without a password.
        kill_file: what the file that kills says; None where it does not stand there.
    """
    return {
        "format": 1,
        "at": utc(clock.wall_ms()),
        "ledger": url,
        "killed": _killed(found.killed),
        "kill_file": kill_file,
        "limits": _limits(found.version),
        "drill": _drill(found.drill),
        "incidents": [told_of(incident) for incident in found.incidents],
        "budgets": [_budget(budget) for budget in found.budgets],
        "sweeps": [_sweep(running, clock) for running in found.sweeps],
        "closed_sweeps": found.closed,
    }


def _killed(latch: Latch | None) -> dict[str, Any] | None:
    if latch is None:
        return None
    return {"at": utc(latch.at_ms), "reason": latch.reason, "by": latch.by}


def told_of(incident: Incident) -> dict[str, Any]:
    """A shutdown as plain values."""
    return {
        "number": incident.number,
        "lineage": incident.lineage,
        "at": utc(incident.at_ms),
        "sweep": incident.sweep,
        "rule": incident.rule,
        "reason": incident.reason,
        "by": incident.by,
        "safe": incident.safe,
        "steps": [
            {"step": done.step, "at": utc(done.at_ms), "by": done.by, "told": done.told}
            for done in incident.done
        ],
        "pending": list(pending(incident)),
    }


def incident_line(told: Mapping[str, Any]) -> str:
    """The same in a line."""
    left = told["pending"]
    waits = f"waits to be {', '.join(left)}" if left else "released"
    return (
        f"Incident {told['number']}: lineage {told['lineage']} was shut down {told['at']} by {told['by']}: "
        f"{told['reason']}; {waits}"
    )


def _limits(version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    return {
        "version": version.number,
        "digest": version.digest,
        "at": utc(version.at_ms),
        "by": version.by,
        "authentic": version.is_authentic,
    }


def _drill(drill: Drill | None) -> dict[str, Any] | None:
    if drill is None:
        return None
    return {
        "at": utc(drill.at_ms),
        "passed": not drill.missed,
        "missed": drill.missed,
        "target_ms": drill.target_ms,
        "by": drill.by,
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "resource": budget.resource,
        "spent": budget.spent,
        "held": budget.held,
        "overrun": budget.overrun,
        "cap": budget.target if budget.limited else None,
        "percent": round(100 * budget.share, 1) if budget.limited else None,
    }


def _sweep(running: RunningSweep, clock: Clock) -> dict[str, Any]:
    sweep = running.sweep
    return {
        "name": sweep.name,
        "state": sweep.state,
        "reason": sweep.reason,
        "lineage": sweep.lineage,
        "limits": sweep.limits.digest,
        "leases": [_lease(lease, clock) for lease in running.leases],
        "budgets": [_budget(budget) for budget in running.budgets],
        "ceilings": [_near(near) for near in running.near],
    }


def _lease(lease: Lease, clock: Clock) -> dict[str, Any]:
    counts = lease.state != "reserved" and lease.boot == clock.boot
    return {
        "key": lease.key,
        "state": lease.state,
        "holder": lease.holder,
        "seconds_left": (lease.deadline_ms - clock.monotonic_ms()) / 1000 if counts else None,
    }


def _near(near: Nearness) -> dict[str, Any]:
    told = {"domain": near.domain, "score": near.score, "ceiling": near.ceiling}
    return {**told, "percent": round(100 * near.share, 1)}


# --- lines


def lines(told: Mapping[str, Any]) -> list[str]:
    """The same for people: what must be seen first stands first."""
    return [printable(line) for line in _lines(told)]


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"Ledger {told['ledger']}, {told['at']}"
    yield _switch(told["killed"])
    if told["kill_file"] is not None:
        yield f"The file KILL stands beside the ledger: {told['kill_file']}"
    yield _version(told["limits"])
    yield _last_drill(told["drill"])
    for incident in told["incidents"]:
        yield f"FROZEN {incident_line(incident)}"
    yield from _budgets("Cluster", told["budgets"])
    for sweep in told["sweeps"]:
        yield from _of_sweep(sweep)
    yield f"{len(told['sweeps'])} sweeps are not closed, {told['closed_sweeps']} are"


def _switch(killed: Mapping[str, Any] | None) -> str:
    if killed is None:
        return "Kill switch: not thrown"
    return f"KILLED at {killed['at']} by {killed['by']}: {killed['reason']}"


def _version(limits: Mapping[str, Any] | None) -> str:
    if limits is None:
        return "Limits: none bind every sweep; each is bound by its own"
    holds = "" if limits["authentic"] else "; its signature does NOT hold"
    named = f"version {limits['version']}, {limits['digest'][:12]}"
    return f"Limits: {named}, {limits['at']}, by {limits['by']}{holds}"


def _last_drill(drill: Mapping[str, Any] | None) -> str:
    if drill is None:
        return "Drill of the kill switch: none yet"
    outcome = "passed" if drill["passed"] else f"MISSED its target, nothing begins: {drill['missed']}"
    return f"Drill of the kill switch: {drill['at']}, by {drill['by']}, {outcome}"


def _budgets(whose: str, budgets: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for budget in budgets:
        if budget["cap"] is not None:
            over = f", overrun {budget['overrun']:,}" if budget["overrun"] else ""
            yield (
                f"{whose} budget {budget['resource']}: {budget['percent']}% of {budget['cap']:,}, "
                f"spent {budget['spent']:,}, held {budget['held']:,}{over}"
            )


def _of_sweep(sweep: Mapping[str, Any]) -> Iterator[str]:
    reason = f": {sweep['reason']}" if sweep["reason"] else ""
    yield f"Sweep {sweep['name']}, lineage {sweep['lineage']}, {sweep['state']}{reason}"
    yield from _budgets("  its", sweep["budgets"])
    for near in sweep["ceilings"]:
        yield f"  {near['domain']}: {near['percent']}% of its ceiling {near['ceiling']}"
    leases = sorted(sweep["leases"], key=_ends)
    yield f"  {len(leases)} open leases"
    for lease in leases[:MOST_LEASES]:
        yield f"    {lease['key']}: {lease['state']}{_holder(lease)}"
    if len(leases) > MOST_LEASES:
        yield f"    and {len(leases) - MOST_LEASES} more, see --json"


def _ends(lease: Mapping[str, Any]) -> tuple[bool, float]:
    left = lease["seconds_left"]
    return left is None, left or 0.0


def _holder(lease: Mapping[str, Any]) -> str:
    if not lease["holder"]:
        return ""
    left = lease["seconds_left"]
    ends = "on another clock" if left is None else f"{left:.1f} s to its deadline"
    return f", held by {lease['holder']}, {ends}"
