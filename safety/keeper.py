"""The worker's side of a lease: renew it in a thread of its own, die at its deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Protocol

from safety.claim import Claim, Measured
from safety.errors import LeaseDenied, LeaseLost, LeaseSettled, SafetyError
from safety.governor import Authority
from safety.lease import Grant
from safety.resources import DeviceMemory, is_over

RENEWALS_PER_LEASE = 3
# that a process without a lease has to end by itself
NO_LEASE_SECONDS = 15.0
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


def _always() -> bool:
    return True


class LeaseKeeper:
    """One lease at a time in one process, which dies with it, computing or not.

    What a trial has started may go on where its process waits: threads, or children that die with it. A
    lease that was settled while nothing is computed leaves the process for another one; one that a report of
    its own ended leaves it what is left of its term, to save what it has.

    The deadline counts on this process's monotonic clock from before each renewal was sent; without an
    answer it comes. It never lies beyond the claim's `wall_ms`.

    Args:
        authority: who grants and renews.
        switch: what ends the process.
        clock: seconds, monotonic.
        supervised: whether somebody could end this process; while not, nothing is renewed.
        memory: bytes that this process has; what it grows by under a lease is held against the claim of a
            trial without a GPU. None where nobody looks.
        device: the same of the GPUs of a trial that has some.
        untold: memory_bytes of a claim whose memory nobody told: nobody looks at its trial either.
    """

    def __init__(
        self,
        authority: Authority,
        switch: Switch,
        clock: Callable[[], float] = time.monotonic,
        supervised: Callable[[], bool] = _always,
        memory: Callable[[], int] | None = None,
        device: DeviceMemory | None = None,
        untold: int | None = None,
    ) -> None:
        self._authority = authority
        self._switch = switch
        self._clock = clock
        self._supervised = supervised
        self._memory, self._device, self._untold = memory, device, untold
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._grant: Grant | None = None
        self._computing = False
        self._lost = ""
        self._began = self._deadline = 0.0
        self._term = NO_LEASE_SECONDS
        self._sharers = 1

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
            LeaseLost: the authority refuses, or nobody looks after this process.
        """
        self.end()
        if not self._supervised():
            raise LeaseLost(f"{key}: what has started this process is gone or stands still")
        asked = self._clock()
        grant = self._authority.activate(key, digest, holder, measured)
        self._hold(grant, asked, began=asked, sharers=1)
        return grant

    def join(self, grant: Grant, *, elapsed_ms: int, sharers: int) -> Grant:
        """Compute under a lease that another process has taken; this one renews it for itself, and so dies.

        Args:
            grant: as that process has it.
            elapsed_ms: time since the lease began there.
            sharers: processes that join it; each may grow by as large a part of the claim's memory.

        Raises:
            LeaseLost: the authority refuses, or nobody looks after this process.
        """
        self.end()
        if not self._supervised():
            raise LeaseLost(f"lease {grant.lease}: what has started this process is gone or stands still")
        asked = self._clock()
        ttl_ms = self._authority.renew(grant.lease, grant.fence)
        claim = replace(grant.claim, memory_bytes=-(-grant.claim.memory_bytes // sharers))
        joined = replace(grant, ttl_ms=ttl_ms, claim=claim)
        self._hold(joined, asked, began=asked - elapsed_ms / 1000, sharers=sharers)
        return joined

    def _hold(self, grant: Grant, asked: float, *, began: float, sharers: int) -> None:
        self._over = threading.Event()
        with self._lock:
            self._grant, self._lost, self._began = grant, "", began
            self._term, self._sharers = grant.ttl_ms / 1000, sharers
            self._extend(asked, grant.ttl_ms)
        arguments = (grant, self._over)
        threading.Thread(target=self._keep, args=arguments, name="lease-keeper", daemon=True).start()
        grown = self._watched(grant.claim)
        if grown:
            looking = (grant, self._over, grown)
            threading.Thread(target=self._look, args=looking, name="memory-watch", daemon=True).start()

    def end(self) -> None:
        """Stop renewing; this process may live on."""
        self._over.set()
        with self._lock:
            self._grant = None
            self._switch.disarm()

    def leave(self) -> None:
        """Stop renewing; this process has nothing more to do, and is dead after the time of one lease.

        Whoever started it ends it before that, if it can.
        """
        self.end()
        self._switch.arm(self._term)

    def elapsed_ms(self) -> int:
        """Time since the lease began."""
        return int((self._clock() - self._began) * 1000)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute under the lease.

        Raises:
            LeaseLost: it is lost already.
        """
        with self._lock:
            if self._grant is None or self._lost or self._clock() >= self._deadline:
                raise LeaseLost(self._lost or "the lease is over")
            outer, self._computing = self._computing, True
        try:
            yield
        finally:
            with self._lock:
                self._computing = outer

    def _keep(self, grant: Grant, over: threading.Event) -> None:
        while not over.wait(grant.ttl_ms / 1000 / RENEWALS_PER_LEASE):
            if not self._supervised():
                continue
            asked = self._clock()
            try:
                ttl_ms = self._authority.renew(grant.lease, grant.fence)
            except LeaseDenied as error:  # its process may end as it should, while the timer runs on
                self._lose(over, error)
                continue
            except LeaseLost as error:
                self._lose(over, error)
                return
            except SafetyError:
                continue  # silence denies: the timer runs on
            with self._lock:
                if not over.is_set():
                    self._extend(asked, ttl_ms)

    def _watched(self, claim: Claim) -> Callable[[], int] | None:
        """What tells by how much the memory has grown from now on; None where nobody looks."""
        if claim.memory_bytes == self._untold:
            return None
        # CUDA takes gigabytes of the host's memory, and the claim is of the GPU's
        if claim.gpu_ms:
            if self._device is None:
                return None
            self._device.begin()
            return self._device.grown_bytes
        if self._memory is None:
            return None
        memory, before = self._memory, self._memory()
        return lambda: memory() - before

    def _look(self, grant: Grant, over: threading.Event, grown_bytes: Callable[[], int]) -> None:
        while not over.wait(LOOK_SECONDS):
            grown = grown_bytes()
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
            # the ledger has the claim of all who share it, and they are alike
            self._authority.observe(grant.lease, grant.fence, grown * self._sharers)
        self._lose(over, LeaseLost(reason))

    def _extend(self, asked: float, ttl_ms: int) -> None:
        limit = self._began + self.grant.claim.wall_ms / 1000
        self._deadline = min(asked + ttl_ms / 1000, limit)
        if not self._lost:
            self._switch.arm(self._deadline - self._clock())

    def _lose(self, over: threading.Event, error: LeaseLost) -> None:
        with self._lock:
            if over.is_set():
                return
            if self._computing or not isinstance(error, LeaseSettled | LeaseDenied):
                self._switch.throw()
            elif isinstance(error, LeaseSettled):
                self._switch.disarm()
            self._lost = str(error)
