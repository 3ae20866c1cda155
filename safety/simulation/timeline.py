"""Simulated time: what happens next, and the clocks of the host that keeps the ledger."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from safety.clock import Clock

WALL_MS = 1_700_000_000_000
DAY_MS = 86_400_000

Action = Callable[[], None]


class Timeline:
    """A queue of what is to happen, in milliseconds of true time; ties happen in the order of planning."""

    def __init__(self) -> None:
        self.now = 0
        self._planned: list[tuple[int, int, str, Action]] = []
        self._numbers = itertools.count()

    def after(self, ms: int, what: str, action: Action) -> None:
        """Plan an action so many milliseconds from now."""
        heapq.heappush(self._planned, (self.now + ms, next(self._numbers), what, action))

    def advance(self) -> tuple[str, Action]:
        """Move to the next action, which the caller does."""
        self.now, _, what, action = heapq.heappop(self._planned)
        return what, action


class Host:
    """The clocks of the ledger's host: the wall clock can be set, a reboot begins another monotonic one."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._boots = 1
        self._booted_at = 0
        self._wall_shift = 0

    @property
    def boot(self) -> str:
        """Which run of the monotonic clock this is."""
        return f"boot-{self._boots}"

    def monotonic_ms(self) -> int:
        """Milliseconds since the boot."""
        return self._timeline.now - self._booted_at

    def clock(self) -> Clock:
        """The clocks as a ledger that starts now takes them."""
        return Clock(monotonic_ms=self.monotonic_ms, wall_ms=self._wall_ms, boot=self.boot)

    def _wall_ms(self) -> int:
        return WALL_MS + self._timeline.now + self._wall_shift

    def set_wall(self, shift_ms: int) -> None:
        """Set the wall clock so far off the truth."""
        self._wall_shift = shift_ms

    def reboot(self) -> None:
        """Start the monotonic clock anew."""
        self._boots += 1
        self._booted_at = self._timeline.now
