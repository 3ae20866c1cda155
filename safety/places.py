"""Where a ledger's checkpoints lie: beside it, and in every folder that a driver has ever named."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from safety import database
from safety.checkpoints import CheckpointFile
from safety.errors import CheckpointError

# beside the ledger
FOLDER = "checkpoints"


def places_of(url: str, beside: Path, elsewhere: Iterable[Path] = ()) -> list[CheckpointFile]:
    """The ledger's own folder first, then those that are recorded there, then others.

    Args:
        url: of the ledger.
        beside: the ledger's own folder.
        elsewhere: folders that are not recorded.

    Raises:
        LedgerError: the URL is not understood.
        CheckpointError: what is recorded can't be read.
    """
    name = database.database_name(url)
    recorded = [CheckpointFile(folder, name, is_there=True) for folder in recorded_in(url, beside)]
    places = [
        CheckpointFile(beside / FOLDER, name),
        *recorded,
        *(CheckpointFile(folder, name) for folder in elsewhere),
    ]
    first: dict[Path, CheckpointFile] = {}
    for place in places:
        first.setdefault(place.path.absolute(), place)
    return list(first.values())


def recorded_in(url: str, beside: Path) -> list[Path]:
    """The folders that were named so far.

    Raises:
        LedgerError: the URL is not understood.
        CheckpointError: the record can't be read.
    """
    path = record_of(url, beside)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"checkpoints {path}: can't be read: {error}") from None
    return [Path(line) for line in lines if line]


def record_of(url: str, beside: Path) -> Path:
    """The file of folders, a line each; whoever may write the ledger may take a line out by hand."""
    return beside / FOLDER / f"{database.database_name(url)}.places"


def new_place(url: str, folder: Path) -> CheckpointFile:
    """A folder to sign into: it is there and can be written, which is tried.

    Raises:
        CheckpointError: it isn't, or can't be.
    """
    problem = "" if folder.is_absolute() and folder.is_dir() else "no such folder on the governor's host"
    if not problem and not str(folder).isprintable():
        problem = "its name can't be written down"
    if problem:
        expected = "expected one that is there, on another disk or host"
        raise CheckpointError(f"checkpoints {str(folder)!r}: {problem}; {expected}")
    place = CheckpointFile(folder, database.database_name(url))
    place.make()
    return CheckpointFile(folder, database.database_name(url), is_there=True)


def record(url: str, beside: Path, folder: Path) -> None:
    """Write a folder down, for every governor after this one; twice is once.

    Raises:
        CheckpointError: it can't be written.
    """
    if folder in recorded_in(url, beside):
        return
    path = record_of(url, beside)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(f"{folder}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(f"checkpoints {path}: can't be written: {error.strerror}") from None
