"""The worker's side of a lease: renew it in a thread of its own, die at its deadline."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from safety.claim import Measured
from safety.errors import LeaseLost, SafetyError
from safety.governor import Authority
from safety.lease import Grant
from safety.resources import is_over

RENEWALS_PER_LEASE = 3
# between two looks at the memory of this process
LOOK_SECONDS = 0.1
# until a process that takes too much memory dies, told or not
TELL_SECONDS = 1.0


class Switch(Protocol):
    """Ends the process when its time is up, whatever it is doing."""

    def arm(self, seconds: float) -> None:
        """Die in so many seconds, counted anew."""
        ...

    def disarm(self) -> None:
        """Don't die."""
        ...

    def throw(self) -> None:
        """Die now."""
        ...


class KernelTimer:
    """A kernel timer whose signal keeps its default action: it needs no Python to run, nor the GIL."""

    def arm(self, seconds: float) -> None:
        """Set the real-time interval timer."""
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))

    def disarm(self) -> None:
        """Clear the timer."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def throw(self) -> None:
        """Kill this process."""
        os.kill(os.getpid(), signal.SIGKILL)


class LeaseKeeper:
    """One lease at a time in one process.

    The deadline counts on this process's monotonic clock from before each renewal was sent; without an
    answer it comes. It never lies beyond the claim's `wall_ms`.

    Args:
        authority: who grants and renews.
        switch: what ends the process.
        clock: seconds, monotonic.
        memory: bytes that this process has; what it grows by under a lease is held against the claim of a
            trial without a GPU. None where nobody looks.
    """

    def __init__(
        self,
        authority: Authority,
        switch: Switch,
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[], int] | None = None,
    ) -> None:
        self._authority = authority
        self._switch = switch
        self._clock = clock
        self._memory = memory
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._grant: Grant | None = None
        self._computing = False
        self._lost = ""
        self._began = self._deadline = 0.0

    @property
    def grant(self) -> Grant:
        """The lease held.

        Raises:
            LeaseLost: none is.
        """
        if self._grant is None:
            raise LeaseLost("no lease is held")
        return self._grant

    def begin(self, key: str, digest: str, holder: str, measured: Measured | None) -> Grant:
        """Take the lease of a trial; whatever was held before is over.

        Raises:
            LeaseLost: the authority refuses.
        """
        self.end()
        asked = self._clock()
        grant = self._authority.activate(key, digest, holder, measured)
        self._over = threading.Event()
        self._grant, self._lost, self._began = grant, "", asked
        self._extend(asked, grant.ttl_ms)
        arguments = (grant, self._over)
        threading.Thread(target=self._keep, args=arguments, name="lease-keeper", daemon=True).start()
        # CUDA takes gigabytes of the host's memory, and the claim is of the GPU's
        if self._memory and not grant.claim.gpu_ms:
            looking = (grant, self._over, self._memory, self._memory())
            threading.Thread(target=self._look, args=looking, name="memory-watch", daemon=True).start()
        return grant

    def end(self) -> None:
        """Stop renewing; this process may live on."""
        self._over.set()
        with self._lock:
            self._grant = None

    def elapsed_ms(self) -> int:
        """Time since the lease began."""
        return int((self._clock() - self._began) * 1000)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute under the lease: losing it meanwhile ends the process.

        Raises:
            LeaseLost: it is lost already.
        """
        with self._lock:
            if self._grant is None or self._lost or self._clock() >= self._deadline:
                raise LeaseLost(self._lost or "the lease is over")
            outer, self._computing = self._computing, True
            self._switch.arm(self._deadline - self._clock())
        try:
            yield
        finally:
            with self._lock:
                self._computing = outer
                if not outer:
                    self._switch.disarm()

    def _keep(self, grant: Grant, over: threading.Event) -> None:
        while not over.wait(grant.ttl_ms / 1000 / RENEWALS_PER_LEASE):
            asked = self._clock()
            try:
                ttl_ms = self._authority.renew(grant.lease, grant.fence)
            except LeaseLost as error:
                self._lose(over, str(error))
                return
            except SafetyError:
                continue  # silence denies: the timer runs on
            with self._lock:
                if not over.is_set():
                    self._extend(asked, ttl_ms)

    def _look(self, grant: Grant, over: threading.Event, memory: Callable[[], int], before: int) -> None:
        while not over.wait(LOOK_SECONDS):
            grown = memory() - before
            if is_over(grant.claim, grown):
                self._end_for_memory(grant, over, grown)
                return

    def _end_for_memory(self, grant: Grant, over: threading.Event, grown: int) -> None:
        """Tell of it, and die: at the latest when the switch comes, if no answer does."""
        reason = f"memory grew by {grown:,} bytes, reserved {grant.claim.memory_bytes:,}"
        with self._lock:
            if over.is_set():
                return
            self._lost = reason
            if self._computing:
                self._switch.arm(TELL_SECONDS)
        with suppress(SafetyError):
            self._authority.observe(grant.lease, grant.fence, grown)
        self._lose(over, reason)

    def _extend(self, asked: float, ttl_ms: int) -> None:
        limit = self._began + self.grant.claim.wall_ms / 1000
        self._deadline = min(asked + ttl_ms / 1000, limit)
        if self._computing and not self._lost:
            self._switch.arm(self._deadline - self._clock())

    def _lose(self, over: threading.Event, reason: str) -> None:
        with self._lock:
            if over.is_set():
                return
            if self._computing:
                self._switch.throw()
            self._lost = reason
