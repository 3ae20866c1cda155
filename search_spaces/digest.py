"""A file known by its content, so that every process that reads it reads the same one."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_digest(path: Path, digest: str) -> None:
    """Raise ValueError where the file is not the one that the digest is of."""
    found = file_digest(path)
    if found != digest:
        raise ValueError(
            f"{path}: SHA-256 {found}, expected {digest}: it isn't the file that was loaded first"
        )
