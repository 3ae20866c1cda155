"""Signs the audit's end into other places, as soon as something was written that must not be lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

from safety import audit, checkpoints
from safety.audit import Head
from safety.checkpoints import Checkpoint, CheckpointFile
from safety.clock import Clock, system_clock
from safety.errors import CheckpointError, SafetyError
from safety.identity import Identity
from safety.ledger import Ledger
from safety.verdict import Deny

_log = logging.getLogger(__name__)


class Notary:
    """Looks at a ledger's audit after a transaction, and signs where a settlement, a kill or the like came.

    It never raises: a place that can't be written is told in the log and, once for as long as it lasts, in
    the audit; the safety work goes on. One caller at a time.

    Args:
        ledger: whose audit it signs.
        identity: the key.
        places: where checkpoints go; what one of them missed is made up for by its next one.
        clock: for the time in a checkpoint.
    """

    def __init__(
        self,
        ledger: Ledger,
        identity: Identity,
        places: Sequence[CheckpointFile],
        clock: Clock | None = None,
    ) -> None:
        self._ledger = ledger
        self._identity = identity
        self._places = tuple(places)
        self._clock = clock or system_clock()
        # number of the row up to which a place knows the audit
        self._known: dict[CheckpointFile, int] = {}
        self._failing: set[CheckpointFile] = set()

    def sign_if_due(self) -> Checkpoint | None:
        """Sign the audit's end into every place that lacks it; the checkpoint, where one was due."""
        try:
            return self._sign()
        except SafetyError as error:  # another call comes with the next transaction
            _log.warning("the audit can't be signed now: %s", error)
            return None

    def _sign(self) -> Checkpoint | None:
        self._look_up()
        heads = {known: self._head_after(known) for known in set(self._known.values())}
        due = [(place, heads[known]) for place, known in self._known.items()]
        head = max(filter(None, heads.values()), key=lambda found: found.seq, default=None)
        if head is None:
            return None
        checkpoint = checkpoints.sign(self._identity, head, self._clock.wall_ms())
        for place, found in due:
            if found:
                self._keep(place, checkpoint)
        return checkpoint

    def _look_up(self) -> None:
        """What places that were not read yet know already: a process before this one wrote it."""
        for place in self._places:
            if place not in self._known:
                try:
                    newest = place.read().newest
                    problem = self._contradicts(place)
                except CheckpointError as error:
                    problem = str(error)
                # what is signed over a ledger that was cut would hide that it was
                if problem:
                    self._tell(place, problem)
                else:
                    self._known[place] = newest.seq if newest else 0

    def _head_after(self, seq: int) -> Head | None:
        with self._ledger.reading() as connection:
            return audit.head_after(connection, seq, checkpoints.SIGNED)

    def _keep(self, place: CheckpointFile, checkpoint: Checkpoint) -> None:
        try:
            place.append(checkpoint)
        except OSError as error:
            self._tell(place, f"checkpoints {place.path}: can't be written: {error.strerror}")
        else:
            self._known[place] = checkpoint.seq
            self._failing.discard(place)

    def _tell(self, place: CheckpointFile, reason: str) -> None:
        if place in self._failing:
            return
        self._failing.add(place)
        _log.error(reason)
        self._ledger.refuse("", "", Deny(checkpoints.RULE, reason), kind="incident")

    def contradiction(self) -> str:
        """Why the ledger can't be the one that was signed; "" where it can.

        The newest checkpoint of each place is looked at, and the newest one under this key, which takes no
        time; `verify` looks at all.

        Raises:
            LedgerError: the ledger can't be read.
            CheckpointError: a place can't be read.
        """
        return next(filter(None, map(self._contradicts, self._places)), "")

    def _contradicts(self, place: CheckpointFile) -> str:
        for signed in self._newest(place):
            with self._ledger.reading() as connection:
                found = audit.hash_of(connection, signed.seq)
            if found != signed.hash:
                problem = f"row {signed.seq} of the audit is {'another' if found else 'gone'}"
                cause = "the ledger was cut, replaced, or is an older copy"
                return f"{problem}, though {place.path} has it signed: {cause}"
        return ""

    def _newest(self, place: CheckpointFile) -> Iterator[Checkpoint]:
        # a line that anybody could write must not hide what the key has signed
        for kept in sorted(place.read().checkpoints, key=lambda one: one.seq, reverse=True):
            yield kept
            if kept.signed_by(self._identity.public):
                return


class NotaryThread:
    """A notary in a thread of its own: nobody waits for a disk that is slow, or gone.

    Args:
        notary: it is called by this thread alone from now on.
    """

    def __init__(self, notary: Notary) -> None:
        self._notary = notary
        self._woken = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="notary", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that a transaction was committed; returns at once."""
        self._woken.set()

    def close(self, seconds: float) -> bool:
        """Sign what is due and end; whether it did within this time."""
        self._closed = True
        self.wake()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        closed = False
        while not closed:
            self._woken.wait()
            self._woken.clear()
            closed = self._closed  # before the last look, so that it sees what came before the close
            self._notary.sign_if_due()
