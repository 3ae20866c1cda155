"""The journal of a study: a file of Optuna's logs, in which an ask is one write."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileOpenLock
from optuna.storages.journal._file import LOCK_FILE_SUFFIX
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

from rsi_ray.patience import Result, while_away

FINISHED = tuple(state for state in TrialState if state.is_finished())


class Journal(BaseJournalBackend):
    """Optuna's journal file, read and written as by `JournalFileBackend`, for one storage of this process.

    The lines of an ask are in the file for every process to read, and on the disk with the next record or
    result: what a crash of the whole machine can lose is a proposal whose training it ends as well. A line
    that such a crash left unfinished is cut off before the next one is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = JournalFileOpenLock(str(path))
        self._lock = path.with_name(path.name + LOCK_FILE_SUFFIX)
        path.touch()
        self._position = 0
        # what an ask has set that is not in the file yet, and what of it nobody has read yet
        self._held: list[dict[str, Any]] | None = None
        self._unread: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The lines that the storage hasn't read yet; from 0, all of them. It reads held ones twice."""
        if log_number_from == 0:
            self._position = 0
        for line in self._patiently(self._read_on):
            self._position += len(line)
            yield json.loads(line)
        while self._unread:
            yield self._unread.pop(0)

    def _read_on(self) -> list[bytes]:
        """The whole lines from where it has read to."""
        with self._path.open("rb") as file:
            file.seek(self._position)
            return [line for line in file if line.endswith(b"\n")]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines; wait for the disk unless all of them are of an ask."""
        if self._held is not None and all(map(_is_proposed, logs)):
            self._held += logs
            self._unread += logs
            return
        self._write(logs, durable=not all(map(_is_of_an_ask, logs)))

    @contextmanager
    def one_write(self) -> Iterator[None]:
        """Write the parameters and the notes of a sampler that are set meanwhile at the end, all at once."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held:
                self._write(held, durable=False)

    def _write(self, logs: Sequence[Mapping[str, Any]], *, durable: bool) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._patiently(self._writing.acquire)
        try:
            end = self._patiently(self._end)
            # again from the same place: a write that failed may have been whole
            self._patiently(lambda: self._write_at(end, lines.encode(), durable=durable))
        finally:
            self._patiently(self._release)

    def _patiently(self, act: Callable[[], Result]) -> Result:
        return while_away(act, str(self._path))

    def _end(self) -> int:
        with self._path.open("rb") as file:
            return _end_of_lines(file.seek(0, os.SEEK_END), file.fileno())

    def _write_at(self, end: int, lines: bytes, *, durable: bool) -> None:
        with self._path.open("r+b") as file:
            file.truncate(end)
            file.seek(end)
            file.write(lines)
            file.flush()
            if durable:
                os.fsync(file.fileno())

    def _release(self) -> None:
        try:
            self._writing.release()
        except RuntimeError as error:  # so it tells that it couldn't; it may be gone, as too old a lock
            if self._lock.exists():
                raise OSError(str(error)) from None


class StudyStorage(JournalStorage):
    """Optuna's storage on a `Journal`; it looks for trials that wait or run among the unfinished alone."""

    def __init__(self, path: Path) -> None:
        self._unfinished: dict[int, list[int]] = defaultdict(list)
        self._looked_at: Counter[int] = Counter()
        super().__init__(Journal(path))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials of a study in these states, by number."""
        if deepcopy or (states is not None and any(state in states for state in FINISHED)):
            return super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        with self._thread_lock:
            self._sync_with_backend()
            trials = self._replay_result._trials
            ids = self._replay_result._study_id_to_trial_ids[study_id]
            if states is None:
                return [trials[trial_id] for trial_id in ids]
            self._refresh(study_id, trials, ids)
            unfinished = [trials[trial_id] for trial_id in self._unfinished[study_id]]
            return [trial for trial in unfinished if trial.state in states]

    def _refresh(self, study_id: int, trials: Mapping[int, FrozenTrial], ids: Sequence[int]) -> None:
        candidates = [*self._unfinished[study_id], *ids[self._looked_at[study_id] :]]
        self._unfinished[study_id] = [one for one in candidates if not trials[one].state.is_finished()]
        self._looked_at[study_id] = len(ids)


def one_write(study: optuna.Study) -> AbstractContextManager[None]:
    """Write what is suggested and noted meanwhile at once, where the study is in a `Journal`."""
    journal = getattr(study._storage, "_backend", None)
    return journal.one_write() if isinstance(journal, Journal) else nullcontext()


def _is_parameter(log: Mapping[str, Any]) -> bool:
    return bool(log["op_code"] == JournalOperation.SET_TRIAL_PARAM)


def _is_proposed(log: Mapping[str, Any]) -> bool:
    return _is_parameter(log) or bool(log["op_code"] == JournalOperation.SET_TRIAL_SYSTEM_ATTR)


def _is_of_an_ask(log: Mapping[str, Any]) -> bool:
    # a trial that is enqueued or told has a state from the start
    created = log["op_code"] == JournalOperation.CREATE_TRIAL and "state" not in log
    return created or _is_parameter(log)


def _end_of_lines(size: int, file: int) -> int:
    """Where the last whole line ends."""
    while size and os.pread(file, 1, size - 1) != b"\n":
        size -= 1
    return size
