"""States of candidates in training, from which another process goes on where theirs is lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

SUFFIX = ".safetensors"
# a state costs one file; what is lost with a node is at most so long
CHECKPOINT_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A state that lies in a folder.

    Attributes:
        digest: of the candidate's configuration.
        reports: that it has made, counted from its first one.
        path: of the file.
    """

    digest: str
    reports: int
    path: Path


def kept_in(folder: Path) -> Iterator[Kept]:
    """Every whole state of a folder."""
    for path in folder.glob(f"*{SUFFIX}"):
        digest, _, reports = path.stem.rpartition("-")
        if digest and reports.isdigit():
            yield Kept(digest=digest, reports=int(reports), path=path)


class States:
    """Keeps the newest state of the candidate that this process trains, now and then.

    Args:
        folder: that every node reaches.
        seconds: between two of a candidate's states; None for none at all.
        clock: seconds, monotonic.
    """

    def __init__(
        self, folder: Path, seconds: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._seconds, self._clock = folder, seconds, clock
        self._since = clock()

    def begin(self, digest: str) -> Kept | None:
        """Count from now on; the newest state of a candidate, None where there is none."""
        self._since = self._clock()
        if self._seconds is None:
            return None
        return max(self._of(digest), key=lambda kept: kept.reports, default=None)

    def _of(self, digest: str) -> list[Kept]:
        return [kept for kept in kept_in(self._folder) if kept.digest == digest]

    def keep(self, digest: str, reports: int, save: Callable[[Path], None]) -> None:
        """Write a state where one is due; a storage that is away costs the state, not the candidate."""
        if self._seconds is None or self._clock() - self._since < self._seconds:
            return
        self._since = self._clock()
        try:
            self._write(digest, reports, save)
        except OSError as error:
            log.warning("%s: the state of a candidate can't be written, it goes on: %s", self._folder, error)

    def _write(self, digest: str, reports: int, save: Callable[[Path], None]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        older, target = self._of(digest), self._folder / f"{digest}-{reports}{SUFFIX}"
        partial = target.with_suffix(".partial")
        save(partial)
        partial.replace(target)
        for kept in older:
            if kept.path != target:
                kept.path.unlink(missing_ok=True)

    def forget(self, digest: str) -> None:
        """The candidate has ended, or nothing goes on from its state."""
        with suppress(OSError):
            for kept in self._of(digest):
                kept.path.unlink(missing_ok=True)
