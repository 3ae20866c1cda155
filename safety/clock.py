"""Time as an argument: a monotonic clock for leases, a wall clock for what people read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Clocks of the ledger's host.

    Attributes:
        monotonic_ms: never set back; alone decides when a lease ends.
        wall_ms: Unix time, for the audit and for the window over which improvements are added up.
        boot: which run of the monotonic clock this is; deadlines of another boot mean nothing.
    """

    monotonic_ms: Callable[[], int]
    wall_ms: Callable[[], int]
    boot: str


def system_clock() -> Clock:
    """The clocks of this machine."""
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(round(time.time() - time.monotonic()))
    return Clock(
        monotonic_ms=lambda: time.monotonic_ns() // 1_000_000,
        wall_ms=lambda: time.time_ns() // 1_000_000,
        boot=boot,
    )
