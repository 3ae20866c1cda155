"""Waits for a worker to end and kills what it left; run as a file, so that it loads next to nothing."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

# what a worker starts carries it in its environment, with the worker's own value
MARK = "RSI_RAY_WORKER"
LOOK_SECONDS = 0.05
ROUNDS = 100


def wait_for(parent: int) -> None:
    """Return when this process's parent is another one: that one has ended, reaped or not."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)


def bury(group: int, mark: str) -> None:
    """Kill a process group, and whatever carries the mark, until nothing is left of them."""
    for _ in range(ROUNDS):  # some may be starting others
        found = _kill_group(group), *[_kill(pid) for pid in marked(mark)]
        if not any(found):
            return
        time.sleep(0.01)


def marked(mark: str) -> list[int]:
    """Processes with the mark in their environment, besides this one."""
    line = f"{MARK}={mark}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if line in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return [pid for pid in found if pid != os.getpid()]


def _kill_group(group: int) -> bool:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _kill(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return True


if __name__ == "__main__":
    wait_for(int(sys.argv[1]))
    bury(int(sys.argv[1]), sys.argv[2])
