"""The durable truth: budgets, leases and audit, in one SQL database."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import sqlalchemy as sa

from safety import audit, budgets, endings, leases, proximity, succession, sweeps
from safety.budgets import Budget
from safety.claim import Claim, Usage
from safety.errors import LeaseDenied, LeaseLost, LeaseSettled
from safety.lease import OPEN_STATES, Grant, Lease, Request, is_lasting
from safety.limits import Limits
from safety.overview import Overview, overview
from safety.proximity import Nearness
from safety.rules import is_of_report
from safety.sweep_ledger import SweepLedger
from safety.sweeps import Sweep
from safety.verdict import Allow, Deny, Hold, Verdict

__all__ = ["Ledger", "Sweep"]


Judge = Callable[[Limits, Claim], Verdict]


def _allowed(limits: Limits, claim: Claim) -> Verdict:
    del limits, claim
    return Allow()


class Ledger(SweepLedger):
    """The lease protocol over a database; every method is one transaction.

    Args:
        url: SQLAlchemy URL, `sqlite:///path` by default use.
        clock: the clocks of this host.
    """

    # --- leases

    def reserve(self, request: Request, judge: Judge = _allowed) -> Verdict:
        """Hold a claim in every budget that it touches, or say which one has no room.

        The same request again is answered by the lease that it already has.

        Args:
            request: what is asked for.
            judge: of the claim, under the limits of its sweep.

        Raises:
            KeyReused: the key was used for another request.
        """
        with self._transaction() as connection:
            known = leases.of_request(connection, request)
            if known and known.state not in OPEN_STATES:
                return Deny("ended", f"{request.key}: its lease is {known.state} already")
            verdict = _admitted(connection, request, judge)
            if known or not isinstance(verdict, Allow):
                return verdict
            return leases.reserve(connection, self._clock, request, known)

    def readmit(self, request: Request, judge: Judge = _allowed) -> Verdict:
        """Hold a claim for a trial that may have held another: it was paused, changed or restarted.

        What was reserved and never began makes way. Hold: its earlier lease is not over yet. A trial that
        was refused is refused for good.

        Raises:
            KeyReused: the key is another sweep's.
        """
        with self._transaction() as connection:
            refusal = _admitted(connection, request, judge)
            if not isinstance(refusal, Allow):
                return refusal
            known = leases.by_key(connection, request.key)
            verdict = leases.standing(known, request) if known else None
            if verdict:
                return verdict
            if known and known.state == "reserved":
                leases.end(connection, self._clock, known, "void", {}, reason="its trial was changed")
            return leases.reserve(connection, self._clock, request, known)

    def activate(self, key: str, digest: str, holder: str) -> Grant:
        """Begin a lease: the first renewal. Nothing computes before it; again by its holder, it renews.

        Raises:
            LeaseLost: no lease for this key and digest, or it is over, or somebody else's.
        """
        with self._transaction() as connection:
            lease = leases.by_key(connection, key)
            if lease is None or lease.digest != digest:
                raise LeaseLost(f"{key}: nothing was reserved for this candidate")
            if lease.state == "active" and lease.holder == holder:
                return self._grant(lease, lease.fence, self._go_on(connection, lease))
            if lease.state != "reserved":
                raise LeaseLost(f"{key}: the lease is {lease.state} already")
            ttl_ms = self._term(connection, lease)
            leases.begin(connection, self._clock, lease, holder, ttl_ms)
            return self._grant(lease, lease.fence + 1, ttl_ms)

    def _grant(self, lease: Lease, fence: int, ttl_ms: int) -> Grant:
        return Grant(lease=lease.id, fence=fence, ttl_ms=ttl_ms, claim=lease.claim)

    def _term(self, connection: sa.Connection, lease: Lease) -> int:
        sweep = sweeps.find(connection, lease.sweep)
        denial = _not_open(sweep)
        if denial:
            raise LeaseLost(f"{lease.key}: {denial.reason}")
        return sweep.limits.lease_seconds * 1000

    def renew(self, lease_id: int, fence: int) -> int:
        """Go on computing: the milliseconds until the new deadline.

        Raises:
            LeaseDenied: a report under it was denied.
            LeaseLost: fenced, revoked, ended, expired, or the sweep is frozen.
        """
        with self._transaction() as connection:
            return self._go_on(connection, leases.fenced(connection, lease_id, fence))

    def _go_on(self, connection: sa.Connection, lease: Lease) -> int:
        if lease.state == "settled":
            raise LeaseSettled(f"{lease.key}: the lease is settled")
        if lease.state not in ("active", "revoked"):
            raise LeaseLost(f"{lease.key}: the lease is {_told(lease.state, lease.reason)}")
        ttl_ms = self._term(connection, lease)
        if lease.state == "revoked":
            lost = LeaseDenied if is_of_report(lease.rule) else LeaseLost
            raise lost(f"{lease.key}: the lease is revoked: {lease.reason}")
        if lease.boot == self._clock.boot and self._clock.monotonic_ms() > lease.deadline_ms:
            raise LeaseLost(f"{lease.key}: the lease expired before it was renewed")
        leases.extend(connection, self._clock, lease, ttl_ms)
        return ttl_ms

    def settle(self, lease_id: int, fence: int, usage: Usage) -> None:
        """End a lease: what was used is spent, the rest of the hold returns.

        Usage over the hold is an overrun: an incident that freezes the sweep. Settling twice is once.

        Raises:
            LeaseLost: the fence is stale, or the hold was forfeited; so it is past deadline and grace.
        """
        with self._transaction() as connection:
            lease = leases.fenced(connection, lease_id, fence)
            if lease.state == "settled":
                return
            if lease.state not in ("active", "revoked"):
                raise LeaseLost(f"{lease.key}: the lease is {lease.state}")
            forfeited = endings.reap_begun(connection, self._clock, lease)
            if not forfeited:
                endings.settle(connection, self._clock, lease, usage)
        if forfeited:  # raised within, it would be rolled back
            raise LeaseLost(f"{lease.key}: settled after its deadline and grace; the lease is forfeited")

    def void(self, key: str, reason: str) -> None:
        """Give back a lease that never began; one that began is left as it is."""
        with self._transaction() as connection:
            lease = leases.by_key(connection, key)
            if lease and lease.state == "reserved":
                leases.end(connection, self._clock, lease, "void", {}, rule=lease.rule, reason=reason)

    def revoke(self, key: str, rule: str, reason: str) -> None:
        """Renew a lease no more; its hold stays until it is settled or reaped."""
        with self._transaction() as connection:
            lease = leases.by_key(connection, key)
            if lease:
                endings.revoke(connection, self._clock, lease, rule, reason)

    def deny(self, request: Request, denial: Deny) -> None:
        """Record that a request is refused; a lease that it has already is not touched.

        Raises:
            KeyReused: the key was used for another request.
        """
        with self._transaction() as connection:
            leases.of_request(connection, request)
            note = {"sweep": request.sweep, "key": request.key, "rule": denial.rule}
            audit.note(connection, self._clock, "deny", **note, detail={"reason": denial.reason})

    def refuse(self, sweep: str, key: str, denial: Deny | Hold, *, kind: str = "deny") -> None:
        """Record a refusal; where there is a lease, the first one that lasts is the verdict on it."""
        with self._transaction() as connection:
            lease = leases.by_key(connection, key)
            if lease and not lease.rule and is_lasting(denial.rule):
                leases.change(connection, lease, rule=denial.rule, reason=denial.reason)
            note = {"sweep": sweep, "key": key, "rule": denial.rule}
            audit.note(connection, self._clock, kind, **note, detail={"reason": denial.reason})

    def record_incident(self, sweep: str, key: str, rule: str, reason: str) -> None:
        """Record an incident that is no verdict on its trial's lease."""
        note = {"sweep": sweep, "key": key, "rule": rule}
        with self._transaction() as connection:
            audit.note(connection, self._clock, "incident", **note, detail={"reason": reason})

    def note_once(self, key: str, denial: Deny) -> bool:
        """Record an incident of no sweep; whether it is new: the same rule and key are recorded once."""
        with self._transaction() as connection:
            if audit.knows(connection, "incident", denial.rule, key):
                return False
            detail = {"reason": denial.reason}
            audit.note(connection, self._clock, "incident", key=key, rule=denial.rule, detail=detail)
            return True

    def reap(self) -> int:
        """End leases that nobody looks after; the number ended.

        Never activated and the driver silent: void. Activated and silent past deadline and grace: the
        whole hold is spent, since the worker may have computed all of it.
        """
        with self._transaction() as connection:
            return endings.reap(connection, self._clock)

    def lease(self, key: str) -> Lease | None:
        """The newest lease of a trial's key."""
        with self._transaction() as connection:
            return leases.by_key(connection, key)

    def has_lapsed(self, key: str, *, died: bool = False) -> bool:
        """Whether the newest lease of a trial's key was not renewed in time, as a live worker's is.

        One that died before it began had lost another trial's.
        """
        with self._transaction() as connection:
            lease = leases.by_key(connection, key)
            if lease is None or lease.state != "active":
                return lease is not None and (
                    lease.state == "forfeited" or (died and lease.state == "reserved")
                )
            return lease.boot != self._clock.boot or self._clock.monotonic_ms() > lease.deadline_ms

    def is_overtime(self, key: str) -> bool:
        """Whether the newest lease of a trial's key was begun as long ago as its claim lets it run."""
        lease = self.lease(key)
        if lease is None or lease.state not in ("active", "revoked"):
            return False
        return self._clock.monotonic_ms() - lease.began_ms >= lease.claim.wall_ms

    def confirm(self, lease_id: int, fence: int, judge: Judge) -> Verdict:
        """Judge an active lease by its fence; a denial is an incident that revokes this lease and no other.

        Raises:
            LeaseLost: the fence is stale, or the lease is over.
        """
        with self._transaction() as connection:
            lease = leases.fenced(connection, lease_id, fence)
            if lease.state != "active":
                raise LeaseLost(f"{lease.key}: the lease is {_told(lease.state, lease.reason)}")
            verdict = judge(sweeps.find(connection, lease.sweep).limits, lease.claim)
            if isinstance(verdict, Deny):
                leases.revoke_built(connection, self._clock, lease, verdict)
            return verdict

    def bound(self, key: str) -> tuple[Lease, Sweep] | None:
        """The newest lease of a trial's key, and the sweep that it belongs to."""
        with self._transaction() as connection:
            lease = leases.by_key(connection, key)
            return None if lease is None else (lease, sweeps.find(connection, lease.sweep))

    def hear(self, lease: Lease, usage: Usage, number: int = 0) -> None:
        """Keep what a trial's report has told of its use; see `leases.hear`."""
        with self._transaction() as connection:
            leases.hear(connection, lease, usage, number)

    def approach(self, lease: Lease, near: Iterable[Nearness]) -> None:
        """Keep how near a trial has come to its ceilings; see `proximity.keep`."""
        with self._transaction() as connection:
            for one in near:
                proximity.keep(connection, self._clock, lease, one)

    def nearest(self, sweep: str) -> tuple[Nearness, ...]:
        """How near a sweep has come to its capability ceilings; see `proximity.nearest`."""
        with self._transaction() as connection:
            return proximity.nearest(connection, sweep)

    def overview(self) -> Overview:
        """What it binds and what runs under it now; no writer waits for this."""
        with self.reading() as connection:
            return overview(connection)

    def open_leases(self, sweep: str) -> list[Lease]:
        """Leases of a sweep that hold budget."""
        with self._transaction() as connection:
            return leases.open_ones(connection, sweep)

    def budgets(self, sweep: str) -> list[Budget]:
        """The budgets that a sweep draws on: the cluster's and its own."""
        with self._transaction() as connection:
            return budgets.of_sweep(connection, sweep)


def _admitted(connection: sa.Connection, request: Request, judge: Judge) -> Verdict:
    sweep = sweeps.find(connection, request.sweep)
    claim = succession.with_ancestors(connection, sweep, request.claim)
    return _not_open(sweep) or judge(sweep.limits, claim)


def _not_open(sweep: Sweep) -> Deny | None:
    if sweep.state == "open":
        return None
    return Deny(sweep.state, f"sweep {sweep.name} is {_told(sweep.state, sweep.reason)}")


def _told(state: str, reason: str) -> str:
    return f"{state}: {reason}" if reason else state
