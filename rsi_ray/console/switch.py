"""The kill switch as a server holds it: thrown in the ledger, or by the file that kills where it can't be."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsi_ray.oversight import sign
from rsi_ray.status_command import NOT_LOOKED, status_of
from safety import Ledger
from safety.database import state_folder
from safety.kill_file import put

# for the ledger to take a kill, before the file is put there too
PATIENCE_SECONDS = 2.0
# kills that wait for the ledger at once; what comes beside them becomes a file
_AT_ONCE = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Thrown:
    """What came of a kill.

    Attributes:
        leases: that were revoked; None where the ledger didn't take it.
        problem: why it did not; "" where it did.
        file: which kills instead, as soon as the ledger can be written; "" where there is none.
    """

    leases: int | None
    problem: str = ""
    file: str = ""


class RemoteSwitch:
    """A ledger that may be away for a while; every method may be called by several threads.

    Args:
        url: of the ledger.
        storage: folder of all runs.
        patience_seconds: for the ledger to take a kill.
    """

    def __init__(self, url: str, storage: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._url, self._storage, self._patience_seconds = url, storage, patience_seconds
        self._opening = threading.Lock()
        self._ledger: Ledger | None = None
        self._throwing = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="kill")
        # a folder of checkpoints may be slow: a kill that is thrown doesn't wait to be told so
        self._signing = ThreadPoolExecutor(1, thread_name_prefix="sign")

    def open(self) -> Ledger:
        """The ledger, which is opened once.

        Raises:
            LedgerError: it can't be opened.
        """
        with self._opening:
            if self._ledger is None:
                self._ledger = Ledger(self._url)
            return self._ledger

    def close(self) -> None:
        """Give the connections back, when what is being thrown is thrown."""
        self._throwing.shutdown()
        self._signing.shutdown()
        if self._ledger is not None:
            self._ledger.close()

    def status(self) -> dict[str, Any]:
        """What `rsi-ray status --json` tells of the ledger.

        Raises:
            LedgerError: it can't be read.
        """
        return {**status_of(self.open(), self._storage), "ray": NOT_LOOKED}

    def kill(self, reason: str, by: str) -> Thrown:
        """Throw the switch; where the ledger is silent, put the file there that throws it."""
        try:
            thrown: Future[int] = self._throwing.submit(self._throw, reason, by)
            return Thrown(leases=thrown.result(self._patience_seconds))
        except NoAnswer:
            problem = f"the ledger has not taken it within {self._patience_seconds:g} s"
        except Exception as error:  # whatever it is, the kill must not be lost
            problem = str(error) or type(error).__name__
        return self._put(f"{reason} (by {by})", problem)

    def _throw(self, reason: str, by: str) -> int:
        ledger = self.open()
        held = ledger.kill(reason, by)
        self._signing.submit(self._sign, ledger)
        return held

    def _sign(self, ledger: Ledger) -> None:
        try:
            sign(ledger, self._storage)
        except Exception:  # it is thrown, whatever becomes of the signature
            log.exception("the audit is not signed now")

    def _put(self, reason: str, problem: str) -> Thrown:
        try:
            file = put(state_folder(self._url, self._storage), reason)
        except OSError as error:
            return Thrown(leases=None, problem=f"{problem}; the file KILL can't be put there: {error}")
        return Thrown(leases=None, problem=problem, file=str(file))
