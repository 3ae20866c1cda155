"""Where a run's files may lie: its storage, an artifact store, and the ledger on a disk of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from rsi_ray.artifact_store import SCHEMES, ArtifactStore, store_uri
from rsi_ray.ledgers import sqlite_path
from safety import LedgerError
from safety.database import parsed_url


def problems_of_places(storage: str | Path, artifacts: str | None, ledger: str | None) -> Iterator[str]:
    """What is wrong with where files are to lie, as far as it can be told without looking there."""
    if _names_a_store(str(storage)):
        yield f"storage: {_shown(str(storage))}, expected a folder; an object store goes under `artifacts`"
        return
    yield from _problems_of_ledger(ledger)
    if artifacts is None:
        return
    try:
        store = ArtifactStore(uri=store_uri(artifacts))
    except ValueError as error:
        yield f"artifacts: {error}"
        return
    if store.folder is not None:
        yield from _problems_of_folder(store.folder.resolve(), Path(storage).expanduser().resolve(), ledger)


def _problems_of_ledger(ledger: str | None) -> Iterator[str]:
    if not ledger:
        return
    file = sqlite_path(ledger)
    if _names_a_store(ledger) or (file is not None and _names_a_store(str(file))):
        yield (
            f"ledger: {_shown(ledger)}: an object store has no locks, and a ledger is never in one; expected "
            "a file of a local disk, or PostgreSQL"
        )
        return
    try:
        parsed_url(ledger)
    except LedgerError as error:
        yield str(error)


def _problems_of_folder(artifacts: Path, storage: Path, ledger: str | None) -> Iterator[str]:
    if artifacts.is_relative_to(storage) or storage.is_relative_to(artifacts):
        yield f"artifacts: {artifacts} and the storage {storage} lie in one another; expected two folders"
    file = sqlite_path(ledger) if ledger else None
    if file is not None and file.absolute().resolve().is_relative_to(artifacts):
        yield f"ledger: {file} lies in the artifacts {artifacts}; expected a file of a disk of its own"


def _names_a_store(text: str) -> bool:
    # a path loses one of its slashes
    scheme = text.partition(":/")[0].rpartition("/")[2]
    return ":/" in text and scheme in SCHEMES


def _shown(uri: str) -> str:
    """Without what may be a key."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
