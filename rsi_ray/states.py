"""States of candidates in training, from which another process goes on where theirs is lost."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rsi_ray.artifact_store import ArtifactStore, Place, write_whole
from rsi_ray.errors import ArtifactStoreError
from rsi_ray.patience import Result, while_away

log = logging.getLogger(__name__)

SUFFIX = ".safetensors"
# a state costs one file; what is lost with a node is at most so long
CHECKPOINT_SECONDS = 30
_FAULTS = (OSError, ArtifactStoreError)
# that a storage may be away when a candidate goes on: its lease runs meanwhile
SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A state that is kept.

    Attributes:
        digest: of the candidate's configuration.
        reports: that it has made, counted from its first one.
    """

    digest: str
    reports: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.digest}-{self.reports}{SUFFIX}"


def kept_in(place: Place) -> list[Kept]:
    """Every whole state of a folder, or of one of a store.

    Raises:
        ArtifactStoreError: the store can't be read.
    """
    names = place.names() if isinstance(place, ArtifactStore) else [path.name for path in place.glob("*")]
    stems = [name.removesuffix(SUFFIX).rpartition("-") for name in names if name.endswith(SUFFIX)]
    return [
        Kept(digest=digest, reports=int(reports))
        for digest, _, reports in stems
        if digest and reports.isdigit()
    ]


def remove(place: Place, kept: Kept) -> None:
    """Delete a state, if it is there and the storage lets it be done."""
    with suppress(*_FAULTS):
        if isinstance(place, ArtifactStore):
            place.remove(kept.name)
        else:
            (place / kept.name).unlink(missing_ok=True)


class States:
    """Keeps the newest state of the candidate that this process trains, now and then.

    Args:
        place: a folder that every node reaches, or one of a store.
        seconds: between two of a candidate's states; None for none at all.
        clock: seconds, monotonic.
    """

    def __init__(
        self, place: Place, seconds: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._place, self._seconds, self._clock = place, seconds, clock
        self._since = clock()
        self._newest: Kept | None = None

    def begin(self, digest: str) -> Kept | None:
        """Count from now on; the newest state of a candidate, None where there is none."""
        self._since, self._newest = self._clock(), None
        if self._seconds is None:
            return None
        try:
            there = self._patiently(lambda: kept_in(self._place))
        except _FAULTS as error:
            log.warning("a candidate begins anew, its states can't be looked for: %s", error)
            return None
        found = [kept for kept in there if kept.digest == digest]
        self._newest = max(found, key=lambda kept: kept.reports, default=None)
        return self._newest

    def read(self, kept: Kept, restore: Callable[[Path], None]) -> None:
        """Give the file of a state to who restores it; a storage that is away is waited for.

        Raises:
            ArtifactStoreError, OSError: it can't be fetched.
        """
        if isinstance(self._place, Path):
            path = self._place / kept.name
            self._patiently(lambda: path.open("rb").close())
            restore(path)
            return
        store = self._place
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / kept.name
            self._patiently(lambda: store.get(kept.name, path))
            restore(path)

    def _patiently(self, act: Callable[[], Result]) -> Result:
        return while_away(act, str(self._place), faults=_FAULTS, seconds=SECONDS)

    def keep(self, digest: str, reports: int, save: Callable[[Path], None]) -> None:
        """Write a state where one is due; a storage that is away costs the state, not the candidate."""
        if self._seconds is None or self._clock() - self._since < self._seconds:
            return
        self._since = self._clock()
        before, kept = self._newest, Kept(digest=digest, reports=reports)
        try:
            write_whole(self._place, kept.name, save)
        except _FAULTS as error:
            log.warning("the state of a candidate can't be written, it goes on: %s", error)
            return
        self._newest = kept
        if before and before != kept:
            remove(self._place, before)

    def forget(self) -> None:
        """The candidate has ended, or nothing goes on from its state."""
        if self._newest:
            remove(self._place, self._newest)
        self._newest = None
