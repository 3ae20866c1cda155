"""A kill switch that needs no program: a file by this name beside the ledger."""

from __future__ import annotations

from pathlib import Path

from safety.ledger import Ledger
from safety.private_file import write_new

NAME = "KILL"
# of what the file says; the audit is no place for a book
MOST = 200


def reason_in(folder: Path) -> str | None:
    """Why it stands there; None where no such file does. One that can't be read stands there too."""
    path = folder / NAME
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError:
        text = ""
    first = " ".join(text.split())[:MOST]
    return first or f"the file {NAME}"


def put(folder: Path, reason: str) -> Path:
    """Put the file there; one that stands there already stays as it is.

    Raises:
        OSError: not even an empty one can be put there.
    """
    path = folder / NAME
    try:
        write_new(path, " ".join(reason.split()).encode("utf-8", "replace"), mode=0o644)
    except OSError:  # a full disk may still have room for a name
        path.touch()
    return path


def obey(ledger: Ledger, folder: Path) -> None:
    """Throw the ledger's kill switch if the file stands in the folder."""
    reason = reason_in(folder)
    if reason is not None and ledger.killed() is None:
        ledger.kill(reason, by=f"the file {NAME}")
