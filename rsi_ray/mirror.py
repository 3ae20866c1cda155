"""Repeats what a run leaves in its storage in an artifact store, while it runs, and brings it back."""

from __future__ import annotations

import glob
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.errors import ArtifactStoreError, RunError

# in the folder of a run of the loop: what it takes to go on
LOOP_FILE = "loop.json"
# of a run's folder; what its trials leave is in the store already, and its lock is nobody else's
OF_A_RUN = ("[!.]*.json", "[!.]*.log", "[!.]*.parquet", "[!.]*.safetensors", "evaluations/[!.]*.json")
# between two rounds; one that takes long is followed by as much more time
SECONDS, SHARE = 5.0, 10
# for the last round, and for whoever waits for one
END_SECONDS, WAIT_SECONDS = 30.0, 10.0

log = logging.getLogger(__name__)


def of_sweep(run: str) -> tuple[str, ...]:
    """Patterns of what the run of a sweep leaves, in a storage."""
    return (*(f"{glob.escape(run)}/{one}" for one in OF_A_RUN), "incidents/*/[!.]*")


def of_loop(run: str, lineage: str) -> tuple[str, ...]:
    """Patterns of what a run of the loop leaves: its generations' runs and its lineage as well."""
    escaped = glob.escape(run)
    return (
        *of_sweep(run),
        *(f"{escaped}-g*/{one}" for one in OF_A_RUN),
        f"champions/{glob.escape(lineage)}/[!.]*",
        f"learned/{glob.escape(lineage)}.safetensors",
    )


class Mirror:
    """Repeats files in a store from a thread; whoever runs never waits for it longer than they say.

    A store that fails is told of once, and tried again; so it is once it works again.

    Args:
        store: where they go, under their names in the storage.
        storage: folder of all runs.
        patterns: of what is repeated, below the storage.
    """

    def __init__(self, store: ArtifactStore, storage: Path, patterns: Sequence[str]) -> None:
        self._store, self._storage, self._patterns = store, storage, patterns
        self._put: dict[str, tuple[int, int]] = {}
        self._turn = threading.Condition()
        self._asked = self._done = 0
        self._over, self._fault = False, ""
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, seconds: float = END_SECONDS) -> None:
        """Repeat all that is there now, and end; after so many seconds, say that it could not be done."""
        if not self.flush(seconds, whatever=True):
            log.warning(
                "%s; what is missing there is in %s, and goes there when the run is resumed",
                self._fault or f"artifacts {self._store}: slow", self._storage,
            )  # fmt: skip
        with self._turn:
            self._over = True
            self._turn.notify_all()
        self._thread.join(seconds)

    def flush(self, seconds: float = WAIT_SECONDS, *, whatever: bool = False) -> bool:
        """Wait until all that is there now is repeated; whether it is.

        Args:
            seconds: at most.
            whatever: wait for a store that has just failed, too.
        """
        with self._turn:
            self._asked += 1
            mine = self._asked
            self._turn.notify_all()
            return (
                self._turn.wait_for(lambda: self._done >= mine or bool(self._fault and not whatever), seconds)
                and self._done >= mine
            )

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._turn:
                self._turn.wait_for(
                    lambda: self._over or (self._asked > self._done and not self._fault), pause
                )
                if self._over:
                    return
                asked = self._asked
            begun = time.monotonic()
            fault = self._round()
            pause = max(SECONDS, SHARE * (time.monotonic() - begun))
            if fault:
                pause = SECONDS
            self._tell(fault)
            with self._turn:
                self._fault = fault
                self._done = self._done if fault else asked
                self._turn.notify_all()

    def _tell(self, fault: str) -> None:
        if fault and not self._fault:
            log.warning("%s; the run goes on, and it is tried again", fault)
        elif self._fault and not fault:
            log.warning("artifacts %s: takes files again; nothing is missing there", self._store)

    def _round(self) -> str:
        """Put what has changed; what went wrong, "" where nothing did."""
        try:
            names = list(self._found())
        except OSError as error:
            return f"artifacts {self._store}: the storage can't be read: {error}"
        faults = [fault for name in names if (fault := self._repeat(name))]
        return faults[0] if faults else ""

    def _repeat(self, name: str) -> str:
        """Put one file where it has changed; what went wrong, which is no other file's."""
        path = self._storage / name
        try:
            stat = path.stat()
            state = stat.st_mtime_ns, stat.st_size
            if self._put.get(name) != state:
                self._store.put(path, name)
                self._put[name] = state
        except FileNotFoundError:  # replaced or removed meanwhile
            return ""
        except (ArtifactStoreError, OSError) as error:
            return str(error)
        return ""

    def _found(self) -> Iterator[str]:
        for pattern in self._patterns:
            for path in sorted(self._storage.glob(pattern)):
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(self._storage).as_posix()


@contextmanager
def mirrored(store: ArtifactStore | None, storage: Path, patterns: Sequence[str]) -> Iterator[Mirror | None]:
    """Repeat files while something runs; nothing where there is no store."""
    if store is None:
        yield None
        return
    mirror = Mirror(store, storage, patterns)
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.close()


def bring_back(store: ArtifactStore, storage: Path, run: str) -> list[str]:
    """Fetch what a mirror has put into a store of a run and isn't in the storage; the names of it.

    Raises:
        ArtifactStoreError: it can't be read.
        RunError: the run is neither here nor there.
    """
    names = store.at(run).names()
    if not names and not (storage / run).is_dir():
        raise RunError(f"run {run}: neither in {storage} nor in {store}; expected the name of a run there")
    patterns = of_sweep(run)
    if LOOP_FILE in names:
        if not (storage / run / LOOP_FILE).exists():
            store.get(f"{run}/{LOOP_FILE}", storage / run / LOOP_FILE)
        patterns = of_loop(run, _lineage(storage / run / LOOP_FILE) or run)
    missing = [name for name in _matching(store, patterns) if not (storage / name).exists()]
    for name in missing:
        store.get(name, storage / name)
    return missing


def _lineage(path: Path) -> str:
    try:
        return str(json.loads(path.read_bytes())["config"]["lineage"] or "")
    except (ValueError, KeyError, TypeError):
        return ""


def _matching(store: ArtifactStore, patterns: Iterable[str]) -> Iterator[str]:
    """Names in a store that match, folder by folder: what trials have left there is not listed."""
    for pattern in patterns:
        yield from _below(store, "", pattern.split("/"))


def _below(store: ArtifactStore, folder: str, parts: Sequence[str]) -> Iterator[str]:
    first, *rest = parts
    certain = rest and not set(first) & set("*?[")
    for name in [first] if certain else [one for one in store.names() if fnmatchcase(one, first)]:
        if rest:
            yield from _below(store.at(name), f"{folder}{name}/", rest)
        else:
            yield f"{folder}{name}"
