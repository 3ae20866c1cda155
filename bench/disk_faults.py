"""What may befall a ledger's or a run's disk: it can't be written, it is locked, it is full."""

from __future__ import annotations

import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def may_freeze() -> bool:
    """Whether `read_only` is possible here: it takes root, and a file system with attributes."""
    with tempfile.NamedTemporaryFile() as file:
        frozen = subprocess.run(["chattr", "+i", file.name], capture_output=True).returncode == 0
        if frozen:
            subprocess.run(["chattr", "-i", file.name], check=True)
    return frozen


@contextmanager
def read_only(ledger: Path) -> Iterator[None]:
    """Within, whoever opens the ledger anew can't write to it: root neither."""
    files = [str(path) for path in ledger.parent.glob(f"{ledger.name}*")]
    subprocess.run(["chattr", "+i", *files], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Within, nobody writes into a folder or a file of it: root neither."""
    subprocess.run(["chattr", "-R", "+i", str(folder)], check=False)  # what is gone meanwhile can't be
    try:
        yield
    finally:
        subprocess.run(["chattr", "-R", "-i", str(folder)], check=True)


@contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Within, another process of this machine holds the ledger's write lock."""
    connection = sqlite3.connect(ledger, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Within, the folder's disk, which had better be a small one, has no room."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        ballast.unlink()
