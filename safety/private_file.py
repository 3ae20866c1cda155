"""Files that only their owner reads: written whole or not at all, refused where others may read them."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from safety.errors import IdentityError


def write_new(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a new file, whole or not at all; of several writers at once, one wins."""
    number, own = tempfile.mkstemp(dir=path.parent)
    try:
        with open(number, "wb") as file:
            os.fchmod(number, mode)
            file.write(content)
            file.flush()
            os.fsync(number)
        os.link(own, path)
    except FileExistsError:  # another one was faster; its file stays
        pass
    finally:
        os.unlink(own)


def read_private(path: Path) -> bytes:
    """What a file holds.

    Raises:
        IdentityError: others may read it.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise IdentityError(f"{path}: others may read it (mode {mode:o}); expected mode 600")
    return path.read_bytes()
