"""What the kernel does for a worker: a timer that kills it, a look at its parent, the end of its children."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from safety import undertaker

# seconds that a machine sleeps count as well: whoever granted the lease may have been awake
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_SIGEV_SIGNAL = 0
# of a process that is stopped, traced, dead
_STANDS_STILL = "TtZX"


class _Event(ctypes.Structure):
    """`struct sigevent`, which is 64 bytes wide."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_char * 48),
    )


class _Seconds(ctypes.Structure):
    """`struct timespec`."""

    _fields_ = (("whole", ctypes.c_long), ("nano", ctypes.c_long))


class _Setting(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = (("interval", _Seconds), ("value", _Seconds))


class KernelTimer:
    """Kills this process when its time is up, whatever it does: it can't catch, block or outwait SIGKILL.

    It needs no Python to run, nor the GIL, and works on a stopped process. Where the kernel has no such
    timer (it isn't Linux), SIGALRM at its default action stands in, which a process may ignore.
    """

    def __init__(self) -> None:
        self._library = _timers()
        self._timer = ctypes.c_void_p()
        self._owner = 0

    def arm(self, seconds: float) -> None:
        """Die in so many seconds, counted anew; at once where none are left.

        Raises:
            OSError: the kernel has no timer for this process.
        """
        self._set(max(seconds, 1e-3))

    def disarm(self) -> None:
        """Clear the timer."""
        self._set(0)

    def throw(self) -> None:
        """Kill this process."""
        os.kill(os.getpid(), signal.SIGKILL)

    def _set(self, seconds: float) -> None:
        if self._library is None:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return
        if self._owner != os.getpid():  # a forked child has none of its parent's timers
            event = _Event(signal=signal.SIGKILL, notify=_SIGEV_SIGNAL)
            _check(self._library.timer_create(_CLOCK, ctypes.byref(event), ctypes.byref(self._timer)))
            self._owner = os.getpid()
        whole = int(seconds)
        setting = _Setting(value=_Seconds(whole, int((seconds - whole) * 1e9)))
        _check(self._library.timer_settime(self._timer, 0, ctypes.byref(setting), None))


def _timers() -> Any:
    """The C library, where it has timers of POSIX; None where it hasn't."""
    for name in ("librt.so.1", None):  # older ones have them in a library of their own
        with suppress(OSError):
            library = ctypes.CDLL(name, use_errno=True)
            if hasattr(library, "timer_create"):
                return library
    return None


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel gives no timer: {os.strerror(number)}")


def parent_runs() -> Callable[[], bool]:
    """Tells whether this process's parent of now is still there and runs.

    Of a Ray worker that is the raylet: who looks after the process, and ends it when it is told to.
    """
    return partial(_runs, os.getppid())


def _runs(parent: int) -> bool:
    if os.getppid() != parent:  # an orphan has another one at once, though nobody reaps the dead
        return False
    stat = Path(f"/proc/{parent}/stat")
    # the name before it, in brackets, may hold anything
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] not in _STANDS_STILL


def be_served_as_others_are() -> None:
    """Take the kernel's usual priority for this process, where it lets us, which takes root.

    Ray starts every actor far behind it: one that others wait for would get no time on a busy host.
    """
    with suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():  # each has a priority of its own
            os.setpriority(os.PRIO_PROCESS, int(thread.name), 0)


def bury_children() -> None:
    """Whenever and however this process ends, kill what it has started: forked, or a command of its own.

    A process of its own waits for that. What leaves the process group and drops the environment is not found.
    """
    mark = f"{os.getpid()}.{time.monotonic_ns()}"
    os.environ[undertaker.MARK] = mark
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    command = [sys.executable, "-I", "-S", undertaker.__file__, str(os.getpid()), mark]
    null = subprocess.DEVNULL
    subprocess.Popen(command, start_new_session=True, stdin=null, stdout=null, stderr=null)
