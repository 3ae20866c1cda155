"""A deadline that the kernel keeps: it kills this process whatever the process does."""

from __future__ import annotations

import ctypes
import os
import signal
import time

# of <signal.h> and <time.h> on Linux
_SIGEV_SIGNAL, _SIGEV_BYTES = 0, 64


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class _Sigevent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_byte * (_SIGEV_BYTES - ctypes.sizeof(ctypes.c_void_p) - 8)),
    )


class KernelTimer:
    """Kills this process when its time is up: SIGKILL, which nothing catches, ignores or delays.

    It needs neither Python to run nor the GIL, and no handler of the user's own code is in its way. Where
    the kernel has no such timers (macOS), SIGALRM at its default action stands in, which a handler disables.
    A forked child has no timer.
    """

    def __init__(self) -> None:
        self._owner = 0
        self._timer: ctypes.c_void_p | None = None
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._is_posix = hasattr(self._libc, "timer_create")

    def arm(self, seconds: float) -> None:
        """Die in so many seconds, counted anew."""
        self._set(max(seconds, 1e-3))

    def disarm(self) -> None:
        """Don't die."""
        self._set(0.0)

    def throw(self) -> None:
        """Die now."""
        os.kill(os.getpid(), signal.SIGKILL)

    def _set(self, seconds: float) -> None:
        if not self._is_posix:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return
        whole, part = divmod(round(seconds * 1e9), 10**9)
        setting = _Itimerspec(_Timespec(0, 0), _Timespec(whole, part))
        timer = self._own()
        self._check(self._libc.timer_settime(timer, 0, ctypes.byref(setting), None))

    def _own(self) -> ctypes.c_void_p:
        """This process's timer: a parent's isn't inherited."""
        if self._timer is None or self._owner != os.getpid():
            timer = ctypes.c_void_p()
            event = _Sigevent(signal=signal.SIGKILL, notify=_SIGEV_SIGNAL)
            clock = time.CLOCK_MONOTONIC
            self._check(self._libc.timer_create(clock, ctypes.byref(event), ctypes.byref(timer)))
            self._timer, self._owner = timer, os.getpid()
        return self._timer

    def _check(self, failed: int) -> None:
        if failed:
            number = ctypes.get_errno()
            raise OSError(number, f"kernel timer: {os.strerror(number)}")
