"""The authority as a driver's plugins ask it: while it is silent, the sweep stands still."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from safety.claim import Measured, Usage
from safety.errors import GovernorUnreachable, LedgerUnavailable
from safety.governor import Authority
from safety.lease import Grant, Request
from safety.rules import Report
from safety.verdict import Verdict

# a governor that is silent for longer ends the sweep
SILENCE_SECONDS = 600.0
RETRY_SECONDS = 0.5

# a question that comes every second and is always written down
_WRITES = "pulse"

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class Patient:
    """Asks again and again where no answer comes; every question of the authority is safe to repeat.

    Meanwhile nothing is admitted or renewed: workers die at their leases' ends. What a request for admission
    does, its asker knows: it holds. The log has one warning when the sweep begins to stand still, and one
    when it goes on.

    Args:
        authority: who answers.
        stop_asked: whether somebody asks for the end of the sweep, and so of the patience.
        clock: seconds, monotonic.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        authority: Authority,
        stop_asked: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._authority, self._stop_asked = authority, stop_asked
        self._clock, self._sleep = clock, sleep
        # the question that was met with silence first, and when
        self._silent: tuple[str, float] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the wiring: the moment of a silence means nothing to another process."""
        return {**self.__dict__, "_silent": None}

    def _patiently(self, question: str, ask: Callable[[], Answer]) -> Answer:
        asked = self._clock()
        while True:
            try:
                return self._alerting(question, ask)
            except (GovernorUnreachable, LedgerUnavailable):
                if self._stop_asked() or self._clock() - asked >= SILENCE_SECONDS:
                    raise
            self._sleep(RETRY_SECONDS)

    def _alerting(self, question: str, ask: Callable[[], Answer]) -> Answer:
        """Ask once; a standstill is told when it begins, and when it is over."""
        try:
            answer = ask()
        except (GovernorUnreachable, LedgerUnavailable) as error:
            if self._silent is None:
                self._silent = question, self._clock()
                logger.warning("the sweep stands still: %s", error)
            raise
        # a ledger that can't be written still answers what only reads it
        if self._silent and question in (self._silent[0], _WRITES):
            logger.warning("the sweep goes on after %.0f s", self._clock() - self._silent[1])
            self._silent = None
        return answer

    def admit(self, request: Request) -> Verdict:
        """Judge a claim and reserve it."""
        return self._alerting("admit", lambda: self._authority.admit(request))

    def readmit(self, request: Request) -> Verdict:
        """Judge and reserve the claim of a trial that may have held another lease."""
        return self._alerting("readmit", lambda: self._authority.readmit(request))

    def activate(self, key: str, digest: str, holder: str, measured: Measured | None) -> Grant:
        """Begin a lease: a worker's question, which has a deadline."""
        return self._authority.activate(key, digest, holder, measured)

    def confirm(self, lease: int, fence: int, measured: Measured) -> None:
        """Judge what was built: a worker's question."""
        self._authority.confirm(lease, fence, measured)

    def observe(self, lease: int, fence: int, grown_bytes: int) -> None:
        """Judge what a worker takes: a worker's question, which has a deadline."""
        self._authority.observe(lease, fence, grown_bytes)

    def renew(self, lease: int, fence: int) -> int:
        """Go on: a worker's question."""
        return self._authority.renew(lease, fence)

    def settle(self, lease: int, fence: int, usage: Usage) -> None:
        """End a lease."""
        self._patiently("settle", lambda: self._authority.settle(lease, fence, usage))

    def report(self, key: str, report: Report) -> Verdict:
        """Judge one report of a running trial."""
        return self._patiently("report", lambda: self._authority.report(key, report))

    def void(self, key: str, reason: str) -> None:
        """Give back a lease that never began."""
        self._patiently("void", lambda: self._authority.void(key, reason))

    def fail(self, sweep: str, key: str, reason: str) -> None:
        """Record that a trial failed."""
        self._patiently("fail", lambda: self._authority.fail(sweep, key, reason))

    def verdict(self, key: str) -> Verdict:
        """What was decided of a trial in the end."""
        return self._patiently("verdict", lambda: self._authority.verdict(key))

    def state(self, sweep: str) -> str:
        """Whether a sweep is open, frozen, closed or killed; asked once: who asks does so again soon."""
        return self._authority.state(sweep)

    def pulse(self, sweep: str) -> str:
        """Say that the driver is alive."""
        return self._patiently("pulse", lambda: self._authority.pulse(sweep))
