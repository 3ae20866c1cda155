"""A simulated worker: it computes under a lease until its own clock, or the ledger, says no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

from safety.claim import Measured, Usage
from safety.errors import LeaseLost, SafetyError
from safety.keeper import RENEWALS_PER_LEASE
from safety.lease import Grant, Request
from safety.simulation.invariants import Invariants
from safety.simulation.lies import larger_model, lying_usage
from safety.simulation.network import Network, Node
from safety.simulation.timeline import Timeline

ATTEMPTS = 4
RETRY_MS = 2_000
# how far two hosts' clocks may drift apart: 500 parts in a million
DRIFT = 0.0005


class Boss(Protocol):
    """Who gives a worker its trials."""

    def hear(self, worker: Worker, usage: Usage) -> bool:
        """A report of a worker, with what it says that it used; whether it may go on."""
        ...

    def is_free(self, worker: Worker, request: Request | None) -> None:
        """A worker has no trial any more; which one it had."""
        ...


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every worker is given.

    Attributes:
        timeline: simulated time.
        rng: where chance comes from.
        network: the way to the governor.
        invariants: the checks.
        lies: probability of a lie.
        holders: by lease, the live worker that was granted it.
    """

    timeline: Timeline
    rng: Random
    network: Network
    invariants: Invariants
    lies: float
    holders: dict[int, Worker]

    def is_lying(self) -> bool:
        """Whether what is told next is a lie."""
        return self.rng.random() < self.lies


class Worker:
    """A process that runs one trial after another; its clock is true but for its drift."""

    def __init__(self, name: str, node: Node, around: Surroundings, boss: Boss) -> None:
        self.name, self.node, self._around, self._boss = name, node, around, boss
        self._drift = 1 + around.rng.uniform(-DRIFT, DRIFT)
        # what was planned for a life that is over does nothing
        self._life = 0
        self._postponed: list[Callable[[], None]] = []
        self._measured, self._is_too_large = Measured(params=0, forward_flops=0), False
        self.request: Request | None = None
        self.grant: Grant | None = None
        self.computing = self.stopped = False
        self.reports = self.deadline = self._began = 0

    @property
    def holder(self) -> str:
        """This life of this worker, as the ledger knows it."""
        return f"{self.name}.{self._life}"

    @property
    def may_compute(self) -> bool:
        """Whether it computes, or would go on computing if it were continued now."""
        return self.computing and self._around.timeline.now < self.deadline

    def assign(self, request: Request) -> None:
        """Run a trial that was admitted."""
        around, claim = self._around, request.claim
        self.request, self.reports = request, 0
        self._measured = Measured(params=claim.params, forward_flops=claim.forward_flops)
        self._is_too_large = around.is_lying()
        if self._is_too_large:
            self._measured = larger_model(claim)
        self._plan(around.rng.randint(1, 1_000), "begins", lambda: self._begin(request, ATTEMPTS))

    def _plan(self, ms: int, what: str, action: Callable[[], None]) -> None:
        life = self._life

        def act() -> None:
            if self._life == life:
                self._postponed.append(action) if self.stopped else action()

        self._around.timeline.after(ms, f"{self.name} {what}", act)

    # --- a trial

    def _begin(self, request: Request, attempts: int) -> None:
        asked = self._around.timeline.now
        try:
            grant = self._activate(request)
        except LeaseLost:
            self._leave()
        except SafetyError:
            if attempts == 1:
                self._leave()
                return
            self._plan(RETRY_MS, "begins again", lambda: self._begin(request, attempts - 1))
        else:
            self.grant, self.computing, self._began = grant, True, asked
            self._around.holders[grant.lease] = self
            self._extend(asked, grant.ttl_ms)
            self._plan(grant.ttl_ms // RENEWALS_PER_LEASE, "renews", lambda: self._renew(grant))
            self._plan(self._around.rng.randint(500, 8_000), "reports", lambda: self._step(grant))

    def _activate(self, request: Request) -> Grant:
        must_deny = "more was built than reserved" if self._is_too_large else ""
        arguments = request.key, request.digest, self.holder, self._measured
        grant: Grant = self._around.network.ask(self.node, "activate", *arguments, must_deny=must_deny)
        return grant

    def _ask(self, method: str, *arguments: object) -> Any:
        return self._around.network.ask(self.node, method, *arguments)

    def _extend(self, asked: int, ttl_ms: int) -> None:
        """Set the deadline, counted from before it was asked for; the kernel ends the process then."""
        self.deadline = asked + int(ttl_ms * self._drift)
        self._plan(self.deadline - self._around.timeline.now, "is at a deadline", self._expire)

    def _expire(self) -> None:
        if self.computing and self._around.timeline.now >= self.deadline:
            self._around.network.tally["deadlines met"] += 1
            self.die()

    def _renew(self, grant: Grant) -> None:
        if not self.computing:
            return
        asked = self._around.timeline.now
        self._plan(grant.ttl_ms // RENEWALS_PER_LEASE, "renews", lambda: self._renew(grant))
        try:
            ttl_ms: int = self._ask("renew", grant.lease, grant.fence)
        except LeaseLost:
            self.die()
        except SafetyError:
            return  # silence denies: the deadline stays
        else:
            self._extend(asked, ttl_ms)

    def _step(self, grant: Grant) -> None:
        """Train up to the next report, and make it."""
        self._around.invariants.computes(grant.lease, grant.fence)
        self.reports += 1
        heard = self.node.cut_off_until <= self._around.timeline.now
        goes_on = not heard or self._boss.hear(self, self._usage(grant))
        if not goes_on or self.reports >= grant.claim.reports:
            self._finish(grant)
        else:
            self._plan(self._around.rng.randint(500, 8_000), "reports", lambda: self._step(grant))

    def _finish(self, grant: Grant) -> None:
        """Compute no more, and settle in a while."""
        self.computing = False
        usage, rng = self._usage(grant), self._around.rng
        if self._around.is_lying():
            usage = lying_usage(rng, usage, grant.claim)
        self._plan(rng.randint(1, 3_000), "settles", lambda: self._settle(grant, usage, ATTEMPTS))

    def _usage(self, grant: Grant) -> Usage:
        """What was used so far, as an honest worker tells it."""
        elapsed = self._around.timeline.now - self._began
        return replace(grant.used(reports=self.reports, elapsed_ms=elapsed), lease=grant.lease)

    def _settle(self, grant: Grant, usage: Usage, attempts: int) -> None:
        try:
            self._ask("settle", grant.lease, grant.fence, usage)
        except LeaseLost:
            self._around.network.tally["settled too late"] += 1
        except SafetyError:
            if attempts > 1:
                self._plan(RETRY_MS, "settles again", lambda: self._settle(grant, usage, attempts - 1))
                return
        self._leave()

    # --- its end

    def die(self) -> None:
        """The process is gone; another one takes its place."""
        self._around.network.tally["workers died"] += 1
        self._leave()

    def _leave(self) -> None:
        if self.grant:
            self._around.holders.pop(self.grant.lease, None)
        request, self.request, self.grant = self.request, None, None
        self.computing = self.stopped = False
        self._postponed, self._life = [], self._life + 1
        self._boss.is_free(self, request)

    def stop(self, ms: int) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        if not self.stopped:
            self.stopped = True
            life = self._life
            self._around.timeline.after(ms, f"{self.name} goes on", lambda: self._continue(life))

    def _continue(self, life: int) -> None:
        if self._life != life:
            return
        self.stopped = False
        self._expire()  # the timer's signal was pending: it comes before anything else
        postponed, self._postponed = self._postponed, []
        if self._life == life:
            for action in postponed:
                self._plan(1, "catches up", action)
