"""What a worker really takes of its machine's memory, against what was reserved for its trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

from safety.claim import Claim
from safety.limits import Limits
from safety.verdict import Allow, Deny, Verdict

# A process takes memory beside its tensors: libraries that load late, workspaces, what its allocator keeps.
# The built-in examples grew by up to 34 MB more than their claims, always in a worker's first trial.
ALLOWANCE_BYTES = 256 * 2**20


class DeviceMemory(Protocol):
    """What this process takes of its GPUs' memory: a port, since this package knows no library that tells."""

    def begin(self) -> None:
        """Count anew from what is taken now."""
        ...

    def grown_bytes(self) -> int:
        """The most that it has been more than that; short peaks count too."""
        ...


def resident_bytes() -> int:
    """Memory of this process and its descendants: what it has resident, and what each of them has for itself.

    Pages that a child shares with this process are counted once. Children are found on Linux alone.
    """
    process = psutil.Process()
    total = int(process.memory_info().rss)
    for child in _descendants(process.pid):
        with suppress(psutil.Error):  # it has ended
            total += int(psutil.Process(child).memory_full_info().uss)
    return total


def _descendants(pid: int) -> Iterator[int]:
    # psutil reads every process of the machine to find them, which takes 10 ms
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            for child in map(int, file.read_text().split()):
                yield child
                yield from _descendants(child)


def is_over(claim: Claim, grown_bytes: int) -> bool:
    """Whether a trial's process has grown by more than was reserved, and than any process may."""
    return not grown_bytes <= claim.memory_bytes + ALLOWANCE_BYTES


def within_memory(_limits: Limits, claim: Claim, *, grown_bytes: int) -> Verdict:
    """Memory that a trial's process has grown by since its lease began, against its claim."""
    if is_over(claim, grown_bytes):
        return Deny(
            "within_memory",
            f"memory grew by {grown_bytes:,} bytes, reserved {claim.memory_bytes:,} (and {ALLOWANCE_BYTES:,} "
            "that any process may take)",
        )
    return Allow()
