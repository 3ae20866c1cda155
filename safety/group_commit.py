"""Calls that come together share one transaction, and wait for one sync of the disk, not each for its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from safety.errors import SafetyError
from safety.governor import Governor
from safety.ledger import Ledger

# a transaction takes no more calls than this: none waits long for those before it
MOST = 128
IDLE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    arguments: tuple[Any, ...]
    answer: Future[Any] = field(default_factory=Future)


class GroupCommit:
    """A governor whose answers are given when what they tell of is on the disk.

    One thread makes every call, in the order in which they came. A call that fails is undone by itself; where
    the transaction fails, nothing of it has happened, and each of its calls is told so.

    Args:
        ledger: of the governor.
        before: called in each transaction before the others, and about four times a second when there are
            none.
        after: called when a transaction is on the disk.
    """

    def __init__(
        self,
        ledger: Ledger,
        before: Callable[[], object] = lambda: None,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._governor = Governor(ledger)
        self._before, self._after = before, after
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="group-commit", daemon=True)
        self._thread.start()

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Future[Any]:
        """Call a method of the governor; its answer, or its error, when that is certain."""
        call = _Call(method, arguments)
        self._calls.put(call)
        return call.answer

    def close(self) -> None:
        """Answer what was asked for so far, and end."""
        self._calls.put(None)
        self._thread.join()

    def _work(self) -> None:
        going = True
        while going:
            calls = self._waiting()
            going = None not in calls
            self._answer([call for call in calls if call is not None])

    def _waiting(self) -> list[_Call | None]:
        """Every call that waits by now, up to MOST; none where none comes for a while."""
        calls: list[_Call | None] = []
        try:
            calls.append(self._calls.get(timeout=IDLE_SECONDS))
            while len(calls) < MOST:
                calls.append(self._calls.get_nowait())
        except Empty:
            pass
        return calls

    def _answer(self, calls: list[_Call]) -> None:
        # who cancelled a question hears nothing; from here on it can't be cancelled
        calls = [call for call in calls if call.answer.set_running_or_notify_cancel()]
        try:
            with self._ledger.together():
                self._before()
                told = [self._made(call) for call in calls]
        except Exception as error:  # the thread must live: silence would deny for ever
            told = [error] * len(calls)
        for call, answer in zip(calls, told, strict=True):
            if isinstance(answer, Exception):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)
        self._after()

    def _made(self, call: _Call) -> Any:
        try:
            if call.method.startswith("_"):
                raise SafetyError(f"governor: {call.method!r} is no question")
            return getattr(self._governor, call.method)(*call.arguments)
        except SafetyError as error:
            return error
        except Exception as error:  # a fault denies, and says what it was
            return SafetyError(f"{call.method}: {type(error).__name__}: {error}")
