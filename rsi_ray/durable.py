"""Files that a crash leaves as they were or as they should be, and never in between."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_durably(
    path: Path, content: bytes, check: Callable[[Path], None] | None = None, *, mode: int = 0o666
) -> None:
    """Write a file, or replace one, whole or not at all; when this returns it is on the disk.

    One writer at a time: see `locked`.

    Args:
        path: of the file, in a folder that is there.
        content: of it.
        check: is given the file under another name first, and raises where it may not take its place.
        mode: of who may read and write it.
    """
    # a crash leaves one such file at most, which the next try writes over
    partial = path.with_name(f".{path.name}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with open(os.open(partial, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        if check:
            check(partial)
    except Exception:
        partial.unlink()
        raise
    os.replace(partial, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for a lock that ends with the process which holds it, however that ends."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
