"""A ledger at work: the governor's calls, and the notary that signs what they leave."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from safety import database, places
from safety.checkpoints import CheckpointFile
from safety.clock import system_clock
from safety.database import without_password
from safety.errors import CheckpointError, LedgerError, LedgerUnavailable, SafetyError
from safety.group_commit import GroupCommit
from safety.identity import Identity
from safety.kill_file import obey
from safety.ledger import Ledger
from safety.notary import Notary, NotaryThread
from safety.observed import Observed, Tally, observe

REAP_SECONDS = 5.0
# that a place gets to take what was not signed yet
CLOSE_SECONDS = 10.0

log = logging.getLogger(__name__)


class Office:
    """Answers for one ledger, after it was held against its own signed checkpoints.

    Args:
        url: of the ledger.
        folder: of the governor's state.
        identity: the governor's key.
        reap_seconds: after which leases that nobody looks after are ended, though nobody asks for anything.

    Raises:
        LedgerError: the ledger isn't the one that was signed, or can't be opened.
        LedgerUnavailable: a place of checkpoints is away: without it nobody can tell.
    """

    def __init__(
        self, url: str, folder: Path, identity: Identity, reap_seconds: float = REAP_SECONDS
    ) -> None:
        self._reap_seconds, self._reaped = reap_seconds, time.monotonic()
        self._url, self._folder, self._identity = url, folder, identity
        self._adding = threading.Lock()
        self._clock, self._tally = system_clock(), Tally()
        self._alive_ms = self._clock.wall_ms()
        self._ledger = Ledger(url)
        try:
            found = self._places()
        except Exception:
            self._ledger.close()
            raise
        # one for each place: a disk that hangs keeps no other place waiting
        self._threads = tuple(NotaryThread(self._notary(place)) for place in found)
        self._file = database.file_of(url)
        self._inode, self._displaced = _inode(self._file), False
        self._group = GroupCommit(self._ledger, before=self._before, after=self._wake)

    def _places(self) -> list[CheckpointFile]:
        ledger = f"ledger {without_password(self._url)}"
        try:
            found = places.places_of(self._url, self._folder)
            contradiction = self._notary(*found).contradiction()
        except CheckpointError as error:
            record = places.record_of(self._url, self._folder)
            raise LedgerUnavailable(
                f"{ledger}: can't be held against what was signed of it: {error}; "
                f"bring it back, or take its line out of {record}"
            ) from None
        if contradiction:
            raise LedgerError(
                f"{ledger}: {contradiction}; nothing is admitted. Put back the ledger that was signed, "
                "or name a new one and keep this one for its audit"
            )
        return found

    def _notary(self, *found: CheckpointFile) -> Notary:
        return Notary(self._ledger, self._identity, found)

    def _before(self) -> None:
        """In each transaction: the file that kills, and whether this is still the ledger that others see."""
        if _inode(self._file) != self._inode:
            self._displaced = True
            raise LedgerError(
                f"ledger {without_password(self._url)}: its file was replaced, or is gone; "
                "nothing is admitted. Put it back, or end the actor `governor`, so that another opens it"
            )
        if self._displaced:  # connections that were opened meanwhile are another file's
            self._displaced = False
            self._ledger.reconnect()
            raise LedgerUnavailable(f"ledger {without_password(self._url)}: its file is back; ask again")
        obey(self._ledger, self._folder)
        self._reap()
        self._alive_ms = self._clock.wall_ms()

    def _reap(self) -> None:
        """End now and then what dead drivers left: no other may come to ask."""
        now = time.monotonic()
        if now - self._reaped < self._reap_seconds:
            return
        self._reaped = now
        try:
            self._ledger.reap()
        except SafetyError as error:  # whoever asks meanwhile is answered all the same
            log.warning("what nobody looks after is not ended now: %s", error)

    def _wake(self) -> None:
        for thread in self._threads:
            thread.wake()

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Future[Any]:
        """Call a method of the governor; its answer when that is certain."""
        return self._group.ask(method, arguments)

    def sign_into(self, folders: tuple[str, ...]) -> None:
        """Sign the audit into these folders too, from now on and after every restart; none is taken away.

        Raises:
            CheckpointError: one of them can't be written, or is another ledger's.
        """
        with self._adding:
            for folder in map(Path, folders):
                if folder not in places.recorded_in(self._url, self._folder):
                    self._add(folder)

    def _add(self, folder: Path) -> None:
        place = places.new_place(self._url, folder)
        contradiction = self._notary(place).contradiction()
        if contradiction:
            raise CheckpointError(
                f"checkpoints {folder}: {contradiction}; if it is another ledger's, name a folder of its own"
            )
        places.record(self._url, self._folder, folder)
        self._threads = (*self._threads, NotaryThread(self._notary(place)))
        self._wake()

    def observe(self) -> Observed:
        """What its metrics tell, for one thread beside those that answer: no writer waits for it.

        Raises:
            LedgerError: the ledger can't be read.
        """
        now_ms = self._clock.wall_ms()
        with self._ledger.reading() as connection:
            found = observe(connection, now_ms=now_ms, alive_ms=self._alive_ms, before=self._tally)
        self._tally = found.tally
        return found

    def close(self) -> None:
        """Answer what was asked so far, sign it, and give the connections back."""
        self._group.close()
        for thread in self._threads:
            thread.close(CLOSE_SECONDS)
        self._ledger.close()


def _inode(file: Path | None) -> tuple[int, int] | None:
    """What a file is, by whatever name; None where there is none."""
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None
