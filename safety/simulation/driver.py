"""A simulated driver: it opens a sweep, asks for trials, hears of them, dies and comes back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from safety.claim import Usage
from safety.errors import LooserLimits, SafetyError
from safety.lease import Request
from safety.limits import Limits
from safety.rules import Report
from safety.simulation.candidates import DOMAIN, Candidates
from safety.simulation.lies import lying_report
from safety.simulation.worker import Surroundings, Worker
from safety.verdict import Allow

PULSE_MS = 15_000
WAIT_MS = 5_000
RETRY_MS = 2_000
# parts of all chances that a driver takes to do another thing
VOIDS = 0.03
REVOKES = 0.02
RETRIES = 0.4


@dataclass(slots=True)
class Policy:
    """The limits that whoever opens a sweep now is given, and those of the beginning."""

    limits: Limits
    first: Limits


class Driver:
    """One sweep after another: a frozen one is left, and a new name taken.

    Args:
        name: of its sweeps.
        around: what its workers are given.
        policy: the limits in force.
        candidates: what it proposes.
    """

    def __init__(self, name: str, around: Surroundings, policy: Policy, candidates: Candidates) -> None:
        self._name, self._around, self._policy, self._candidates = name, around, policy, candidates
        self.workers: list[Worker] = []
        self.is_alive = True
        self._is_open = self._is_closing = False
        self._sweeps = self._trials = 0
        self._limits = policy.limits
        self._usage: dict[str, Usage] = {}
        self._scores: dict[str, float] = {}
        self._again: list[Request] = []

    @property
    def sweep(self) -> str:
        """Name of its sweep."""
        return f"{self._name}.{self._sweeps}"

    def start(self) -> None:
        """Begin; its workers ask for trials as long as time goes on."""
        self._around.timeline.after(0, f"{self._name} starts", self._tick)
        for worker in self.workers:
            self._plan_proposal(worker, self._around.rng.randint(1, 1_000))

    def _ask(self, method: str, *arguments: Any, must_deny: str = "") -> Any:
        return self._around.network.ask(None, method, *arguments, must_deny=must_deny)

    # --- its sweep

    def _tick(self) -> None:
        self._around.timeline.after(PULSE_MS, f"{self._name} pulses", self._tick)
        if not self.is_alive or self._is_closing:
            return
        try:
            if not self._is_open:
                self._ask("open_sweep", self.sweep, self._limits)
                self._is_open = True
            elif self._ask("pulse", self.sweep) in ("frozen", "closed"):
                self._is_open = False
        except LooserLimits:
            self._next_sweep()
        except SafetyError:
            self._around.network.tally["pulses without an answer"] += 1
        if self._around.invariants.model.sweeps.get(self.sweep) == "frozen":
            self._next_sweep()

    def _next_sweep(self) -> None:
        self._is_open = False
        self._sweeps += 1
        self._limits, self._again = self._policy.limits, []
        self._candidates = Candidates.on(self._candidates.course, self._around.rng)

    def close(self) -> None:
        """End the sweep: kill its workers, wait until none can compute, then close."""
        if self.is_alive and self._is_open and not self._is_closing:
            self._is_closing = True
            self._close_when_dead()

    def _close_when_dead(self) -> None:
        if not self.is_alive:
            return
        for worker in self.workers:
            if worker.request and self._reaches(worker):
                worker.die()
        try:
            if not any(worker.request for worker in self.workers):
                self._ask("close_sweep", self.sweep, dict(self._usage))
                self._is_closing = self._is_open = False
                return
        except SafetyError:
            self._around.network.tally["closings without an answer"] += 1
        self._around.timeline.after(RETRY_MS, f"{self._name} closes", self._close_when_dead)

    def _reaches(self, worker: Worker) -> bool:
        return worker.node.cut_off_until <= self._around.timeline.now

    def die(self, for_ms: int) -> None:
        """The driver's process is gone, with most of its workers; another one comes after a while."""
        if not self.is_alive:
            return
        self.is_alive = self._is_open = self._is_closing = False
        for worker in self.workers:
            if worker.request and self._reaches(worker) and self._around.rng.random() < 0.8:
                worker.die()
        self._around.timeline.after(for_ms, f"{self._name} comes back", self._come_back)

    def _come_back(self) -> None:
        self.is_alive, self._usage = True, {}

    # --- its trials

    def is_free(self, worker: Worker, request: Request | None) -> None:
        """A worker has no trial any more; it may be tried again."""
        rng = self._around.rng
        if request and request.sweep == self.sweep and rng.random() < RETRIES:
            self._again.append(request)
        self._plan_proposal(worker, rng.randint(200, 3_000))

    def _plan_proposal(self, worker: Worker, ms: int) -> None:
        self._around.timeline.after(ms, f"{worker.name} is proposed to", lambda: self._propose(worker))

    def _propose(self, worker: Worker) -> None:
        if not self.is_alive or not self._is_open or self._is_closing:
            self._plan_proposal(worker, WAIT_MS)
            return
        again = self._again.pop(0) if self._again else None
        request = again or self._new_request()
        try:
            verdict = self._ask("readmit" if again else "admit", request)
        except SafetyError:
            # it may have been reserved all the same: asked for again, it is answered by its lease
            self._again.append(request)
            verdict = None
        if not isinstance(verdict, Allow):
            self._plan_proposal(worker, WAIT_MS)
        elif self._around.rng.random() < VOIDS:
            self._void(worker, request)
        else:
            self._scores[request.key] = self._candidates.score()
            worker.assign(request)

    def _new_request(self) -> Request:
        self._trials += 1
        claim = self._candidates.claim()
        if self._around.is_lying():
            claim = replace(claim, params=claim.params * 1_000, memory_bytes=claim.memory_bytes * 1_000)
        return Request(
            key=f"{self.sweep}/{self._trials}", digest=f"d{self._trials}", sweep=self.sweep, claim=claim
        )

    def _void(self, worker: Worker, request: Request) -> None:
        """Give a trial up before it begins; its key can't stand for another one meanwhile."""
        self._try(
            "admit", replace(request, digest="another"), must_deny="its key was used for another request"
        )
        self._try("void", request.key, "it was pruned")
        self._plan_proposal(worker, WAIT_MS)

    def _try(self, method: str, *arguments: Any, must_deny: str = "") -> None:
        try:
            self._ask(method, *arguments, must_deny=must_deny)
        except SafetyError:
            self._around.network.tally[f"{method} refused or not answered"] += 1

    def hear(self, worker: Worker, usage: Usage) -> bool:
        """Have a report judged; whether its trial may go on. What can't be judged may not."""
        request = worker.request
        if request is None or not self.is_alive:
            return True
        score = self._scores[request.key]
        report = Report(score=score, domains={DOMAIN: score}, usage=usage, number=worker.reports)
        must_deny = self._fault_of(report)
        if self._around.is_lying():
            report = lying_report(self._around.rng, report, request.claim, DOMAIN)
            must_deny = f"{report!r:.200}"
        self._usage[request.key] = report.usage
        try:
            verdict = self._ask("report", request.key, report, must_deny=must_deny)
            if self._around.rng.random() < REVOKES:
                self._ask("revoke", request.key, "operator", "it was asked to stop")
            if isinstance(verdict, Allow) and worker.reports == request.claim.reports:
                self._compare(score)
        except SafetyError:
            return False
        return isinstance(verdict, Allow)

    def _fault_of(self, report: Report) -> str:
        ceiling = self._limits.bounds.max_performance[DOMAIN]
        score = report.domains[DOMAIN]
        over = isinstance(score, float) and not score <= ceiling
        return f"a score of {score} is over the ceiling of {ceiling}" if over else ""

    def _compare(self, score: float) -> None:
        """Replace the champion by what is better, if it may be; what is too much better freezes the sweep."""
        old, rate = self._candidates.champion, self._limits.max_improvement_rate
        gain = (score - old) / abs(old)
        must_deny = f"an improvement by {gain:.3f} is over {rate}" if not gain <= rate else ""
        verdict = self._ask("judge_improvement", self.sweep, old, score, must_deny=must_deny)
        if isinstance(verdict, Allow):
            self._candidates.champion = max(old, score)
            return
        self._around.network.tally["runaways stopped"] += 1
        self._ask("freeze", self.sweep, f"{verdict.rule}: {verdict.reason}")
