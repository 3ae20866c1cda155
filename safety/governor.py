"""Judge, record, answer: the one place where a decision is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from safety.budgets import Budget
from safety.claim import Measured, Usage
from safety.drills import Canary
from safety.emergency_client import EmergencyClient
from safety.errors import GovernorUnreachable, LeaseLost, LedgerUnavailable
from safety.evaluations import Evaluated
from safety.lease import DIED, FAILED, LOST, OVERTIME, Grant, Request
from safety.ledger import Judge, Ledger
from safety.limits import Limits
from safety.promoter import Promoter
from safety.proximity import Nearness, proximity
from safety.resources import within_memory
from safety.rules import Report, as_reserved, judge_built, judge_capability, judge_claim, judge_report
from safety.verdict import Allow, Deny, Hold, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """A sweep as people watch it.

    Attributes:
        state: open, frozen, closed or killed.
        reason: why it is frozen or killed.
        budgets: the cluster's and its own.
        near: how near it has come to its capability ceilings.
    """

    state: str
    reason: str
    budgets: tuple[Budget, ...]
    near: tuple[Nearness, ...] = ()


class Authority(Protocol):
    """What plugins and workers ask: a `Governor`, or the client of its actor."""

    def admit(self, request: Request) -> Verdict:
        """Judge a claim and reserve it."""
        ...

    def readmit(self, request: Request) -> Verdict:
        """Judge and reserve the claim of a trial that may have held another lease."""
        ...

    def activate(self, key: str, digest: str, holder: str, measured: Measured | None) -> Grant:
        """Begin a lease, if what was built is what was reserved."""
        ...

    def confirm(self, lease: int, fence: int, measured: Measured) -> None:
        """Judge what was built under a lease."""
        ...

    def observe(self, lease: int, fence: int, grown_bytes: int) -> None:
        """Judge the memory that a trial's process has grown by."""
        ...

    def renew(self, lease: int, fence: int) -> int:
        """Milliseconds until the new deadline."""
        ...

    def settle(self, lease: int, fence: int, usage: Usage) -> None:
        """End a lease."""
        ...

    def report(self, key: str, report: Report) -> Verdict:
        """Judge one report of a running trial."""
        ...

    def void(self, key: str, reason: str) -> None:
        """Give back a lease that never began."""
        ...

    def fail(self, sweep: str, key: str, reason: str) -> None:
        """Record that a trial failed."""
        ...

    def verdict(self, key: str) -> Verdict:
        """What was decided of a trial in the end."""
        ...

    def pulse(self, sweep: str) -> str:
        """Say that the driver is alive; answers the sweep's state."""
        ...

    def state(self, sweep: str) -> str:
        """Whether a sweep is open, frozen, closed or killed."""
        ...


class Governor(Promoter, EmergencyClient):
    """The authority over a ledger; it keeps no memory of its own."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def _ask(self, method: str, *arguments: object) -> Any:
        return getattr(self._ledger, method)(*arguments)

    def open_sweep(
        self,
        sweep: str,
        limits: Limits,
        lineage: str | None = None,
        is_drill: bool = False,
        driver: str = "",
    ) -> Limits:
        """Bind a sweep to its limits; see `Ledger.open_sweep`."""
        return self._ledger.open_sweep(sweep, limits, lineage, is_drill=is_drill, driver=driver)

    def record_drill(self, canaries: Sequence[Canary], target_ms: int, by: str) -> str:
        """Write down what a kill drill measured; see `Ledger.record_drill`."""
        return self._ledger.record_drill(canaries, target_ms, by)

    def close_sweep(self, sweep: str, usage: Mapping[str, Usage], driver: str = "") -> None:
        """End a sweep whose workers are dead; see `Ledger.close_sweep`."""
        self._ledger.close_sweep(sweep, usage, driver)

    def freeze(self, sweep: str, reason: str) -> None:
        """Admit and renew nothing of a sweep any more."""
        self._ledger.freeze(sweep, reason)

    def admit(self, request: Request) -> Verdict:
        """Gate 1: every ceiling, then every budget; what is allowed is reserved, once for a key.

        Raises:
            KeyReused: the key was used for another request.
        """
        verdict = self._judged(request, self._ledger.reserve)
        if isinstance(verdict, Deny):
            self._ledger.deny(request, verdict)
        return verdict

    def readmit(self, request: Request) -> Verdict:
        """Gate 2: the same for a trial that may have held another lease; see `Ledger.readmit`."""
        verdict = self._judged(request, self._ledger.readmit)
        if isinstance(verdict, Deny):
            self._ledger.refuse(request.sweep, request.key, verdict)
        return verdict

    def _judged(self, request: Request, reserve: Callable[[Request, Judge], Verdict]) -> Verdict:
        verdict = reserve(request, judge_claim)
        waits = isinstance(verdict, Hold) or (
            isinstance(verdict, Deny) and verdict.rule.startswith("budget.")
        )
        # what nobody looks after may make room
        return reserve(request, judge_claim) if waits and self._ledger.reap() else verdict

    def activate(self, key: str, digest: str, holder: str, measured: Measured | None) -> Grant:
        """Gate 3: the worker's first renewal, refused where what was built isn't what was reserved.

        Args:
            key: of the trial.
            digest: of what the worker is about to run.
            holder: names the worker.
            measured: what it will build; None where that shows only as it runs, and `confirm` judges it.

        Raises:
            LeaseLost: nothing may be computed.
        """
        lease = self._ledger.lease(key)
        if lease is None or lease.digest != digest:
            raise LeaseLost(f"{key}: nothing was reserved for this candidate")
        verdict = as_reserved(lease.claim, measured) if measured else Allow()
        # one that another holds is refused below, and left as it is
        if isinstance(verdict, Deny) and lease.holder in ("", holder):
            self._ledger.refuse(lease.sweep, key, verdict, kind="incident")
            self._ledger.void(key, verdict.reason)
            raise LeaseLost(f"{key}: {verdict.reason}")
        return self._ledger.activate(key, digest, holder)

    def confirm(self, lease: int, fence: int, measured: Measured) -> None:
        """What was built under a lease, counted before it trains, against the ceilings and the claim.

        Raises:
            LeaseLost: it is over one of them, and its lease is revoked; or the lease is over.
        """
        verdict = self._ledger.confirm(lease, fence, partial(judge_built, measured=measured))
        if isinstance(verdict, Deny):
            raise LeaseLost(f"lease {lease}: {verdict.reason}")

    def observe(self, lease: int, fence: int, grown_bytes: int) -> None:
        """The memory that a trial's process has grown by since its lease began, against its claim.

        Raises:
            LeaseLost: it is more, which is an incident, and its lease is revoked; or the lease is over.
        """
        verdict = self._ledger.confirm(lease, fence, partial(within_memory, grown_bytes=grown_bytes))
        if isinstance(verdict, Deny):
            raise LeaseLost(f"lease {lease}: {verdict.reason}")

    def renew(self, lease: int, fence: int) -> int:
        """Milliseconds until the new deadline; see `Ledger.renew`."""
        return self._ledger.renew(lease, fence)

    def settle(self, lease: int, fence: int, usage: Usage) -> None:
        """End a lease; see `Ledger.settle`."""
        self._ledger.settle(lease, fence, usage)

    def report(self, key: str, report: Report) -> Verdict:
        """Judge one report; a trial without an active lease is denied whatever it reports.

        What it tells of its use counts, whatever its worker tells in the end. A denial is an incident that
        revokes the lease: a worker that isn't stopped by it dies at its next renewal.
        """
        found = self._ledger.bound(key)
        if found and found[0].state == "revoked":
            return Deny(found[0].rule, found[0].reason)
        if found is None or found[0].state != "active":
            return Deny(LOST, f"{key}: no active lease ({found[0].state if found else 'none was reserved'})")
        lease, sweep = found
        if report.usage.lease not in (0, lease.id):
            return Deny(LOST, f"{key}: reported under lease {report.usage.lease}, which is over")
        self._ledger.hear(lease, report.usage, report.number)
        verdict = judge_report(sweep.limits, lease.claim, report)
        if isinstance(verdict, Deny):
            self._ledger.refuse(lease.sweep, key, verdict, kind="incident")
            self._ledger.revoke(key, verdict.rule, verdict.reason)
            return verdict
        near = proximity(sweep.limits, report.domains)
        if near:
            self._ledger.approach(lease, near)
        return verdict

    def void(self, key: str, reason: str) -> None:
        """Give back a lease that never began."""
        self._ledger.void(key, reason)

    def revoke(self, key: str, rule: str, reason: str) -> None:
        """Renew a lease no more."""
        self._ledger.revoke(key, rule, reason)

    def judge_capability(self, sweep: str, key: str, domains: Mapping[str, object]) -> Verdict:
        """An evaluator's scores of a trial against its sweep's ceilings; a denial is an incident."""
        verdict = judge_capability(self._ledger.sweep(sweep).limits, domains)
        if isinstance(verdict, Deny):
            self._ledger.refuse(sweep, key, verdict, kind="incident")
        return verdict

    def attest(self, lease: int, fence: int, evaluated: Evaluated) -> None:
        """Write down what an evaluator found; see `Ledger.attest`."""
        self._ledger.attest(lease, fence, evaluated)

    def is_attested(self, sweep: str, record: str) -> bool:
        """Whether an evaluator has said this; see `Ledger.is_attested`."""
        return self._ledger.is_attested(sweep, record)

    def record_incident(self, sweep: str, key: str, rule: str, reason: str) -> None:
        """Write an incident into the audit."""
        self._ledger.record_incident(sweep, key, rule, reason)

    def fail(self, sweep: str, key: str, reason: str) -> None:
        """Record that a trial failed, by itself or since nobody renewed its lease, which is not touched."""
        silent = any(error.__name__ in reason for error in (GovernorUnreachable, LedgerUnavailable))
        lost = silent or self._ledger.has_lapsed(key, died=reason == DIED)
        if not lost and reason == DIED and self._ledger.is_overtime(key):
            reason = OVERTIME
        self._ledger.refuse(sweep, key, Deny(LOST if lost else FAILED, reason), kind="fail")

    def verdict(self, key: str) -> Verdict:
        """The refusal recorded on a trial's lease, or Allow."""
        lease = self._ledger.lease(key)
        if lease is not None and lease.rule:
            return Deny(lease.rule, lease.reason, {lease.rule: 1.0})
        return Allow()

    def pulse(self, sweep: str) -> str:
        """The driver is alive: keep its reservations, end what nobody looks after."""
        state = self._ledger.pulse(sweep)
        self._ledger.reap()
        return state

    def state(self, sweep: str) -> str:
        """Whether a sweep is open, frozen, closed or killed."""
        return self._ledger.sweep(sweep).state

    def status(self, sweep: str) -> Status:
        """State and budgets of a sweep."""
        known = self._ledger.sweep(sweep)
        return Status(
            state=known.state,
            reason=known.reason,
            budgets=tuple(self._ledger.budgets(sweep)),
            near=self._ledger.nearest(sweep),
        )

    def ledger_url(self) -> str:
        """Which ledger this governor fronts."""
        return self._ledger.url
