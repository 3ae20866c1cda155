"""Digest of an artifact's file: what is approved and promoted is what lies there, not what is said of it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safety.errors import ArtifactError

_CHUNK = 1 << 20


def artifact_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; taken right before the file is used.

    Raises:
        ArtifactError: it is a symbolic link, no plain file, or can't be read.
    """
    hashed = hashlib.sha256()
    for chunk in _chunks(path):
        hashed.update(chunk)
    return hashed.hexdigest()


def read_artifact(path: Path, digest: str) -> bytes:
    """A file's bytes, which are those of a digest: what is used is what was told, whatever lies there later.

    Raises:
        ArtifactError: it is another file, a symbolic link, no plain file, or can't be read.
    """
    return same_artifact(path, read_plain_file(path), digest)


def same_artifact(path: Path, content: bytes, digest: str) -> bytes:
    """A file's bytes as another machine has sent them, which are those of a digest.

    Raises:
        ArtifactError: they are another file's.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ArtifactError(f"artifact {path}: expected the file of digest {digest!r:.66}, found {found}")
    return content


def read_plain_file(path: Path) -> bytes:
    """A file's bytes, whatever they are.

    Raises:
        ArtifactError: it is a symbolic link, no plain file, or can't be read.
    """
    return b"".join(_chunks(path))


def check_plain_file(path: Path) -> None:
    """Refuse what is no plain file, for who reads it by other means.

    Raises:
        ArtifactError: it is a symbolic link, no plain file, or can't be looked at.
    """
    with _told(path):
        mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        found = "a symbolic link" if stat.S_ISLNK(mode) else "none"
        raise ArtifactError(f"artifact {path}: expected a plain file, found {found}")


def _chunks(path: Path) -> Iterator[bytes]:
    check_plain_file(path)
    with _told(path), open(path, "rb", opener=_open_no_link) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        cause = getattr(error, "strerror", None) or error
        raise ArtifactError(f"artifact {str(path)!a}: cannot be read: {cause}") from None


def _open_no_link(path: str, flags: int) -> int:
    # it may have become one since it was looked at
    return os.open(path, flags | os.O_NOFOLLOW)
