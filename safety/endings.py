"""How leases end besides by hand: settled, cut short or reaped, within the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from safety import audit, budgets, leases, succession, sweeps
from safety.claim import Usage
from safety.clock import Clock
from safety.lease import Lease
from safety.rules import judge_claim
from safety.verdict import Deny

# a driver that is silent for longer has left its reserved leases behind
SWEEP_SILENCE_MS = 60_000


def settle(connection: sa.Connection, clock: Clock, lease: Lease, usage: Usage) -> None:
    """Spend what was used, and no less than its reports told; more than was held freezes the sweep."""
    used = usage.credible(lease.claim).at_least(lease.heard)
    _spend(connection, clock, lease, "settled", used.charges(lease.claim))


def settle_cut_short(connection: sa.Connection, clock: Clock, lease: Lease, told: Usage) -> None:
    """The same for a trial that died, whose use since its last report nobody knows."""
    _spend(connection, clock, lease, "settled", cut_short(clock, lease, told).charges(lease.claim))


def _spend(
    connection: sa.Connection,
    clock: Clock,
    lease: Lease,
    state: str,
    used: Mapping[str, int],
    computed: Mapping[str, int] | None = None,
) -> None:
    """End a lease; more than it held is an incident, and freezes the sweep."""
    overrun = leases.end(connection, clock, lease, state, used, computed=computed)
    if overrun:
        detail = {"overrun": dict(overrun)}
        audit.note(connection, clock, "incident", sweep=lease.sweep, key=lease.key, detail=detail)
        text = ", ".join(f"{amount:,} {resource}" for resource, amount in overrun.items())
        sweeps.freeze(connection, clock, lease.sweep, f"{lease.key} used {text} more than it held")


def void_reserved(connection: sa.Connection, clock: Clock, sweep: str, reason: str) -> None:
    """Give back every lease of a sweep that never began."""
    for lease in leases.open_ones(connection, sweep):
        if lease.state == "reserved":
            leases.end(connection, clock, lease, "void", {}, reason=reason)


def revoke(connection: sa.Connection, clock: Clock, lease: Lease, rule: str, reason: str) -> None:
    """Renew a lease no more, or give it back where it never began; one that is over is left as it is."""
    if lease.state == "reserved":
        leases.end(connection, clock, lease, "void", {}, rule=rule, reason=reason)
    elif lease.state == "active":
        leases.revoke(connection, clock, lease, rule, reason)


def revoke_over(connection: sa.Connection, clock: Clock, sweep: str) -> None:
    """Renew no lease of a sweep whose claim is over the limits in force; what never began is void."""
    found = sweeps.find(connection, sweep)
    for lease in leases.open_ones(connection, sweep):
        verdict = judge_claim(found.limits, succession.with_ancestors(connection, found, lease.claim))
        if isinstance(verdict, Deny):
            revoke(connection, clock, lease, verdict.rule, verdict.reason)


def cut_short(clock: Clock, lease: Lease, told: Usage) -> Usage:
    """What a trial that died is charged: up to its next report, its time until now, and what it told."""
    usage = told.credible(lease.claim) if told.lease in (0, lease.id) else Usage()
    elapsed = clock.monotonic_ms() - lease.began_ms if lease.boot == clock.boot else lease.claim.wall_ms
    return _up_to_the_next_report(lease, usage.at_least(lease.heard), elapsed)


def _up_to_the_next_report(lease: Lease, usage: Usage, elapsed_ms: int) -> Usage:
    """What a dead trial can have computed: nobody asked it for more than one report after the last."""
    claim, elapsed = lease.claim, min(elapsed_ms, lease.claim.wall_ms)
    gpu_ms = -(-claim.gpu_ms * elapsed // max(1, claim.wall_ms))
    return usage.at_least(
        Usage(wall_ms=elapsed, gpu_ms=gpu_ms, reports=min(usage.reports + 1, claim.reports))
    )


def reap(connection: sa.Connection, clock: Clock) -> int:
    """End every lease that nobody looks after; the number ended."""
    silent = leases.of_silent_sweeps(connection, clock, SWEEP_SILENCE_MS)
    for lease in silent:
        leases.end(connection, clock, lease, "void", {}, reason="its driver is silent")
    overdue = leases.overdue(connection, clock)
    return len(silent) + sum(reap_begun(connection, clock, lease) for lease in overdue)


def reap_begun(connection: sa.Connection, clock: Clock, lease: Lease) -> bool:
    """Spend the whole hold of a lease that is silent past deadline and grace, and what it told beyond that.

    Of that, what its worker can't have computed pays for the trial's next attempt.

    Returns:
        Whether it was.
    """
    limits = sweeps.find(connection, lease.sweep).limits
    if lease.boot != clock.boot:
        # the host was started again: its clock says nothing of this lease, so it gets a full term
        leases.extend(connection, clock, lease, limits.lease_seconds * 1000)
        return False
    if clock.monotonic_ms() <= lease.deadline_ms + limits.grace_seconds * 1000:
        return False
    told = lease.heard.charges(lease.claim)
    used = {name: max(amount, told[name]) for name, amount in budgets.whole(lease.claim).items()}
    # its worker was dead at the deadline
    computed = _up_to_the_next_report(lease, lease.heard, lease.deadline_ms - lease.began_ms)
    _spend(connection, clock, lease, "forfeited", used, computed.charges(lease.claim))
    return True
