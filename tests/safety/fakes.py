"""A clock that is set by hand, and the least of each value that a test needs."""

import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from safety import (
    Allow,
    Bounds,
    Budgets,
    Claim,
    Clock,
    Grant,
    LeaseLost,
    Ledger,
    Limits,
    Measured,
    Request,
    Verdict,
)

GFLOP = 10**9


class FakeClock:
    """Both clocks stand still until a test moves them; `restart` begins another boot."""

    def __init__(self) -> None:
        self.monotonic, self.wall, self.boot = 1_000_000, 1_700_000_000_000, "boot-1"

    def clock(self) -> Clock:
        return Clock(monotonic_ms=lambda: self.monotonic, wall_ms=lambda: self.wall, boot=self.boot)

    def pass_ms(self, ms: int) -> None:
        self.monotonic += ms

    def restart(self, monotonic: int = 5_000) -> Clock:
        self.boot, self.monotonic = self.boot + "'", monotonic
        return self.clock()


def limits(
    *, cluster: dict[str, int] | None = None, sweep: dict[str, int] | None = None, **more: Any
) -> Limits:
    bounds = Bounds(
        max_params=1000, max_flops=10_000, max_memory=100_000, max_performance={"reasoning": 0.95}
    )
    return Limits(bounds=bounds, cluster=Budgets(**cluster or {}), sweep=Budgets(**sweep or {}), **more)


def claim(**changed: int) -> Claim:
    values = {
        "params": 100,
        "forward_flops": 200,
        "memory_bytes": 400,
        "train_flops": 10 * GFLOP,
        "wall_ms": 60_000,
        "gpu_ms": 6_000,
        "reports": 5,
    }
    return Claim(**{**values, **changed})


def request(key: str = "s/1", *, sweep: str = "s", digest: str = "d1", **changed: int) -> Request:
    return Request(key=key, digest=digest, sweep=sweep, claim=claim(**changed))


def measured(of: Claim) -> Measured:
    return Measured(params=of.params, forward_flops=of.forward_flops)


def amounts(ledger: Ledger, resource: str, scope: str = "cluster", sweep: str = "s") -> tuple[int, int, int]:
    """Held, spent and overrun of a budget."""
    budget = next(b for b in ledger.budgets(sweep) if (b.scope, b.resource) == (scope, resource))
    return budget.held, budget.spent, budget.overrun


def kinds(ledger: Ledger) -> list[str]:
    """Kinds of the audit's rows, in order."""
    return [entry.kind for _, entry, _ in ledger.audit()]


@dataclass
class FakeAuthority:
    """Answers what a test has set, and remembers what it was asked."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    admits: list[Verdict] = field(default_factory=list)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    states: str = "open"
    ttl_ms: int = 15_000
    claim: Claim = field(default_factory=claim)
    silent: Exception | None = None
    renewals: list[int | Exception] = field(default_factory=list)

    def _asked(self, *what: Any) -> None:
        self.asked.append(what)
        if self.silent:
            raise self.silent

    def admit(self, request: Request) -> Verdict:
        self._asked("admit", request.key)
        return self.admits.pop(0) if self.admits else Allow()

    def readmit(self, request: Request) -> Verdict:
        self._asked("readmit", request.key)
        return self.admits.pop(0) if self.admits else Allow()

    def confirm(self, lease: int, fence: int, measured: Measured) -> None:
        self._asked("confirm", lease, fence, measured)

    def activate(self, key: str, digest: str, holder: str, measured: Measured | None) -> Grant:
        self._asked("activate", key, digest, holder)
        return Grant(lease=1, fence=1, ttl_ms=self.ttl_ms, claim=self.claim)

    def observe(self, lease: int, fence: int, grown_bytes: int) -> None:
        self._asked("observe", lease, fence, grown_bytes)

    def renew(self, lease: int, fence: int) -> int:
        self._asked("renew", lease, fence)
        answer = self.renewals.pop(0) if self.renewals else LeaseLost("revoked")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def settle(self, lease: int, fence: int, usage: Any) -> None:
        self._asked("settle", lease, fence, usage)

    def report(self, key: str, report: Any) -> Verdict:
        self._asked("report", key, report)
        return self.verdicts.get(key, Allow())

    def void(self, key: str, reason: str) -> None:
        self._asked("void", key, reason)

    def fail(self, sweep: str, key: str, reason: str) -> None:
        self._asked("fail", sweep, key, reason)

    def verdict(self, key: str) -> Verdict:
        return self.verdicts.get(key, Allow())

    def pulse(self, sweep: str) -> str:
        self._asked("pulse", sweep)
        return self.states

    def state(self, sweep: str) -> str:
        self._asked("state", sweep)
        return self.states


def dies(program, within):
    """Run a program in a process of its own; its exit code, and how long after its first line it ended."""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "spinning\n"
        began = time.monotonic()
        code = process.wait(within)
        return code, time.monotonic() - began
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
