"""The way to the governor: calls that never arrive, arrive late, take effect and are not answered."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from safety.errors import GovernorUnreachable, LedgerError, SafetyError
from safety.governor import Governor
from safety.ledger import Ledger
from safety.simulation.feed import Change, LatchChange, LeaseChange, RollbackChange, StepChange
from safety.simulation.invariants import Invariants
from safety.simulation.scenarios import Calls
from safety.simulation.storage import Failure, SharedMemory
from safety.simulation.timeline import Host, Timeline
from safety.simulation.violation import Call, Violated
from safety.verdict import Deny, Hold

LATE_MS = 90_000


@dataclass(slots=True)
class Node:
    """A machine that workers run on; it is cut off until a time, in milliseconds."""

    cut_off_until: int = -1


class Network:
    """Carries calls to the governor and to the operator's ledger, and has each one checked.

    Args:
        timeline: simulated time.
        rng: where chance comes from.
        calls: what may happen to a call.
        storage: the ledger's database.
        host: the clocks of its host.
        invariants: the checks.

    Attributes:
        tally: how often each thing happened.
        trace: of all that happened.
        is_away: whether the database can't be read or written.
        crashes_next: whether the governor crashes when the next call has taken effect, before it replies.
    """

    def __init__(
        self,
        timeline: Timeline,
        rng: Random,
        calls: Calls,
        storage: SharedMemory,
        host: Host,
        invariants: Invariants,
    ) -> None:
        self._timeline, self._rng, self._calls = timeline, rng, calls
        self._storage, self._host, self._invariants = storage, host, invariants
        self.tally: Counter[str] = Counter()
        self.trace = hashlib.sha256()
        self.is_away = self.crashes_next = False
        self._operator: Ledger | None = None
        self._ledger: Ledger | None = Ledger(storage.url, host.clock())

    # --- the governor's process

    def start(self) -> None:
        """Start the governor, where it is not up."""
        if self._ledger is None:
            self._ledger = Ledger(self._storage.url, self._host.clock())

    def crash(self) -> None:
        """The governor dies; who asks gets no answer until it is started."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def crash_and_restart(self, within_ms: int) -> None:
        """The governor dies, and is started again after a while."""
        self.tally["governor crashes"] += 1
        self.crash()
        self._timeline.after(self._rng.randint(1, within_ms), "the governor starts", self.start)

    def reboot(self, within_ms: int) -> None:
        """The governor's host is started again, and the governor on it after a while."""
        self.crash_and_restart(within_ms)
        self._host.reboot()
        self._close_operator()
        self.tally["reboots"] += 1

    def calm_down(self) -> Ledger:
        """Let nothing go wrong any more; the governor's ledger."""
        self.is_away, self._calls = False, Calls()
        if self._ledger is None:
            self._ledger = Ledger(self._storage.url, self._host.clock())
        return self._ledger

    def reap(self) -> None:
        """End what nobody looks after."""
        self._deliver(self.calm_down(), Call(method="reap", arguments=()))

    def set_wall(self, shift_ms: int) -> None:
        """Set the wall clock of the governor's host so far off the truth."""
        self._host.set_wall(shift_ms)

    def close(self) -> None:
        """Give the ledgers' connections back."""
        self.crash()
        self._close_operator()

    def _close_operator(self) -> None:
        if self._operator is not None:
            self._operator.close()
            self._operator = None

    # --- calls

    def ask(self, node: Node | None, method: str, *arguments: Any, must_deny: str = "") -> Any:
        """Ask the governor; node is the asker's, None where nothing cuts it off.

        Raises:
            GovernorUnreachable: no answer came; it may have taken effect all the same, or may yet.
            SafetyError: what the governor raised.
        """
        call = Call(method=method, arguments=arguments, must_deny=must_deny)
        cut_off = node is not None and node.cut_off_until > self._timeline.now
        if cut_off or self._ledger is None or self._happens(self._calls.unheard):
            self._lose(call)
            raise GovernorUnreachable(f"{method}: no answer")
        answer = self._deliver(Governor(self._ledger), call)
        if self.crashes_next:
            self.crashes_next = False
            self.crash_and_restart(within_ms=10_000)
            raise GovernorUnreachable(f"{method}: the governor died")
        if self._happens(self._calls.reply_lost):
            self.tally["lost replies"] += 1
            raise GovernorUnreachable(f"{method}: the reply was lost")
        return _given(answer)

    def operate(self, method: str, *arguments: Any) -> Any:
        """Call the ledger as its operator does, who opens it beside the governor.

        Raises:
            SafetyError: what the ledger raised.
        """
        if self._operator is None:
            self._operator = Ledger(self._storage.url, self._host.clock())
        return _given(self._deliver(self._operator, Call(method=method, arguments=arguments)))

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    def _lose(self, call: Call) -> None:
        self.tally["unheard calls"] += 1
        # a sweep is opened and closed by one driver, which waits for the answer
        if not call.method.endswith("_sweep") and self._happens(self._calls.late):
            wait = self._rng.randint(1, LATE_MS)
            self._timeline.after(wait, f"a late {call.method}", lambda: self._arrive(call))

    def _arrive(self, call: Call) -> None:
        if self._ledger is not None:
            self.tally["late calls"] += 1
            self._deliver(Governor(self._ledger), call)

    def _deliver(self, target: object, call: Call) -> object:
        failing = self._failure()
        call = Call(method=call.method, arguments=call.arguments, must_deny=call.must_deny, failing=failing)
        answer = self._answer(getattr(target, call.method), call)
        changes = self._invariants.after(call, answer)
        self._count(call, answer, changes)
        self.trace.update(f"{call.method} {type(answer).__name__} {len(changes)}\n".encode())
        return answer

    def _failure(self) -> Failure | None:
        if self.is_away:
            return Failure.LOCKED
        return self._rng.choice(list(Failure)) if self._happens(self._calls.failing) else None

    def _answer(self, method: Callable[..., object], call: Call) -> object:
        try:
            if call.failing is None:
                return method(*call.arguments)
            with self._storage.failing(call.failing):
                return method(*call.arguments)
        except SafetyError as error:
            return error
        except Exception as error:
            raise Violated(f"I8: {call.method} raised {type(error).__name__}: {error}") from error

    def _count(self, call: Call, answer: object, changes: list[Change]) -> None:
        self.tally["calls"] += 1
        if isinstance(answer, Deny | Hold):
            self.tally[f"{type(answer).__name__} by {answer.rule}"] += 1
        if call.failing and isinstance(answer, LedgerError):
            self.tally["failed transactions"] += 1
        for change in changes:
            if isinstance(change, LeaseChange) and change.before != change.after:
                self.tally[change.after] += 1
            elif isinstance(change, LatchChange):
                self.tally["kills"] += change.thrown
            elif isinstance(change, StepChange):
                self.tally[f"lineages {change.step}"] += 1
            elif isinstance(change, RollbackChange):
                self.tally["champions rolled back"] += 1


def _given(answer: object) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer
