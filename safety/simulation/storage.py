"""A ledger's database in memory that tells each change of its rows, and that can be made to fail."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from enum import Enum
from typing import Any

from safety.simulation import feed

_numbers = itertools.count()
_UNBOUNDED_PAGES = 2**31 - 2
_WIDTHS = {place: len(fields(kind)) for place, kind in feed.KINDS.items()}


class Failure(Enum):
    """How a database fails: it gives no lock, has no page left, fails at a transaction's last statement."""

    LOCKED = "locked"
    FULL = "full"
    ABORTED = "aborted"


class SharedMemory:
    """A database in this process's memory until it is closed; it outlives every ledger over it."""

    def __init__(self) -> None:
        name = f"file:/simulation-{os.getpid()}-{next(_numbers)}?vfs=memdb&cache=shared"
        self.url = f"sqlite:///{name}&uri=true"
        self._connection = sqlite3.connect(name, uri=True, isolation_level=None)

    def close(self) -> None:
        """Forget the database."""
        self._connection.close()

    def watch(self) -> None:
        """Tell the changes from now on; the ledger's tables must be there."""
        self._connection.executescript(feed.WATCH)

    def changes(self) -> list[feed.Change]:
        """What was committed since the last call, in the order of the statements."""
        rows = self._connection.execute("SELECT * FROM simulation_feed ORDER BY id").fetchall()
        if rows:
            self._connection.execute("DELETE FROM simulation_feed")
        return [feed.KINDS[row[1]](*row[2 : 2 + _WIDTHS[row[1]]]) for row in rows]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        return self._connection.execute(query).fetchall()

    @contextmanager
    def failing(self, how: Failure) -> Iterator[None]:
        """Fail whoever writes meanwhile."""
        broken, mended = {
            Failure.LOCKED: ("BEGIN EXCLUSIVE", "ROLLBACK"),
            Failure.FULL: ("PRAGMA max_page_count = 1", f"PRAGMA max_page_count = {_UNBOUNDED_PAGES}"),
            Failure.ABORTED: (
                "UPDATE simulation_abort SET thrown = 1",
                "UPDATE simulation_abort SET thrown = 0",
            ),
        }[how]
        self._connection.execute(broken).fetchall()
        try:
            yield
        finally:
            self._connection.execute(mended).fetchall()
