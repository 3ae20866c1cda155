"""Where the weights of a sweep's candidates go: a folder that all nodes share, or an artifact store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from rsi_ray.artifact_store import ArtifactStore, Place, write_whole
from rsi_ray.errors import ArtifactStoreError
from rsi_ray.patience import while_away

SUFFIX = ".safetensors"
# at the end of a sweep
AT_ONCE, SECONDS_TO_BRING = 8, 30.0

log = logging.getLogger(__name__)


def export_weights(place: Place, trial: str, export: Callable[[Path], None]) -> None:
    """Write a candidate's weights to where they go, whole or not at all.

    Args:
        place: a folder, or one of a store, which is tried for a while.
        trial: its id.
        export: writes them into a file.

    Raises:
        ArtifactStoreError: the store doesn't take them.
    """

    def tried(act: Callable[[], None]) -> None:
        # as long as its lease lets it: nothing is computed meanwhile
        if isinstance(place, ArtifactStore):
            place.patiently(act)
        else:
            while_away(act, str(place))

    write_whole(place, f"{trial}{SUFFIX}", export, tried=tried)


def bring_weights(store: ArtifactStore, folder: Path, trials: Collection[str]) -> None:
    """Fetch the weights of candidates that are in a store and not in the folder yet.

    Raises:
        ArtifactStoreError: the store can't be read.
    """
    there = store.names()
    for name in (f"{trial}{SUFFIX}" for trial in sorted(trials)):
        if name in there and not (folder / name).is_file():
            store.get(name, folder / name)


def prune_stored(store: ArtifactStore, kept: Collection[str]) -> int:
    """Delete the weights of all other candidates; bytes of those that are kept.

    Raises:
        ArtifactStoreError: the store can't be read.
    """
    there = store.sizes()
    names = {f"{trial}{SUFFIX}" for trial in kept}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(partial(_removed, store), there.keys() - names):
            pass
    return sum(size for name, size in there.items() if name in names)


def _removed(store: ArtifactStore, name: str) -> None:
    with suppress(ArtifactStoreError):  # the next time
        store.remove(name)


class Taken:
    """What a sweep takes in a store: looked at in a thread, so that the driver waits for nobody.

    Args:
        weights: of its candidates.
        checkpoints: of Tune, and states of candidates in training.
    """

    def __init__(self, weights: ArtifactStore, *checkpoints: ArtifactStore) -> None:
        self._weights, self._checkpoints = weights, checkpoints
        self._bytes = 0
        self._looking: threading.Thread | None = None

    def prune(self, kept: Collection[str]) -> int:
        """Begin to delete the weights of all others, unless that is under way; bytes by the last look."""
        if self._looking is None or not self._looking.is_alive():
            self._looking = threading.Thread(target=self._look, args=(frozenset(kept),), daemon=True)
            self._looking.start()
        return self._bytes

    def _look(self, kept: Collection[str]) -> None:
        with suppress(ArtifactStoreError):  # what was known holds
            weights = prune_stored(self._weights, kept)
            checkpoints = sum(sum(one.sizes().values()) for one in self._checkpoints)
            self._bytes = weights + checkpoints


def settle_weights(store: ArtifactStore, folder: Path, kept: Collection[str]) -> None:
    """At the end of a sweep: bring what is kept into its folder and delete the rest, if that can be done."""
    try:
        store.patiently(partial(bring_weights, store, folder, kept), SECONDS_TO_BRING)
        prune_stored(store, kept)
    except ArtifactStoreError as error:
        log.warning("%s; the weights stay there, and are brought here when they are needed", error)
