"""The journal of a study: Optuna's file of logs, written to the disk when there is something to lose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._storage import JournalOperation


class Journal(JournalFileBackend):
    """Optuna's journal, in which an ask doesn't wait for the disk once per parameter.

    Its lines are in the file at once, for every process to read, and on the disk with the next record or
    result. What a crash of the whole machine can lose is a proposal whose training it ends as well.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = JournalFileOpenLock(str(path))
        super().__init__(str(path), lock_obj=self._writing)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines; wait for the disk unless all of them are of an ask."""
        if not all(map(_of_an_ask, logs)):
            super().append_logs(logs)
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._writing.acquire()
        try:
            with self._path.open("ab") as file:
                file.write(lines.encode())
        finally:
            self._writing.release()


def _of_an_ask(log: Mapping[str, Any]) -> bool:
    if log["op_code"] == JournalOperation.CREATE_TRIAL:
        return "state" not in log  # one that is enqueued or told has a state
    return bool(log["op_code"] == JournalOperation.SET_TRIAL_PARAM)
