"""Transactions of a ledger's database: one for each call, or one that several calls share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy as sa

from safety import database
from safety.errors import LedgerError, LedgerUnavailable


class _Shared(threading.local):
    """The transaction that a thread's calls share, if they do; and why the database has given it up.

    Attributes:
        stale: a connection of this thread was opened while the database could not be written to, or was
            another one.
    """

    connection: sa.Connection | None = None
    broken = ""
    stale = False


class Transactions:
    """Opens a database, and tells its errors as LedgerError.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self._name = database.without_password(url)
        self._engine = database.open_database(url)
        driver: Any = self._engine.dialect.loaded_dbapi
        self._driver_error: type[Exception] = driver.Error
        # of a lock, a full disk, a server that is away, a database that takes no writes now
        self._passing: tuple[type[Exception], ...] = (driver.OperationalError, driver.InternalError)
        self._reader = database.for_reading(self._engine)
        self._shared = _Shared()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def reconnect(self) -> None:
        """Open connections anew once this thread's transaction is over."""
        self._shared.stale = True

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction for everything that this thread does within: it happens whole, or not at all.

        A call that raises is undone by itself, as ever.
        """
        with self._begun() as connection:
            self._shared.connection = connection
            try:
                yield
            finally:
                self._shared.connection = None
            if self._shared.broken:
                raise LedgerError(self._shared.broken)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One state of the database, to read from; it keeps no writer waiting."""
        with self._told(), self._connected(self._reader) as connection, connection.begin():
            yield connection

    @contextmanager
    def one(self) -> Iterator[sa.Connection]:
        """A transaction, or a part of the one that this thread's calls share; undone where it raises."""
        shared = self._shared.connection
        if shared is None:
            with self._begun() as connection:
                yield connection
            return
        if self._shared.broken:
            raise LedgerError(self._shared.broken)
        with self._told(), self._alone(shared):
            yield shared

    @contextmanager
    def _begun(self) -> Iterator[sa.Connection]:
        with self._told(), self._connected(self._engine) as connection, self._renewed(), connection.begin():
            self._shared.broken = ""
            yield connection

    @contextmanager
    def _connected(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        pool = engine.pool
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            if pool is not engine.pool:  # nobody uses it any more, and it would keep this connection open
                pool.dispose()

    @contextmanager
    def _renewed(self) -> Iterator[None]:
        """Open no more of the connections that were opened read-only: they stay so, and keep others so."""
        try:
            with self._told():
                yield
        finally:
            if self._shared.stale:
                self._shared.stale = False
                pool = self._engine.pool
                self._engine.dispose()
                pool.dispose()  # of what another thread has given back meanwhile

    @contextmanager
    def _alone(self, connection: sa.Connection) -> Iterator[None]:
        """Undo what is done within where it raises, and nothing else of the transaction."""
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute("SAVEPOINT call")
            try:
                yield
            except BaseException as error:
                try:
                    cursor.execute("ROLLBACK TO SAVEPOINT call")
                except self._driver_error:
                    # the database gave the whole transaction up: on a full disk, SQLite does
                    self._shared.broken = f"ledger {self._name}: {error}"
                    raise
                raise
            finally:
                if not self._shared.broken:
                    cursor.execute("RELEASE SAVEPOINT call")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the database as this package's."""
        try:
            yield
        # the driver itself refuses an integer beyond 64 bits, and text that isn't Unicode
        except (sa.exc.SQLAlchemyError, self._driver_error, OverflowError, UnicodeEncodeError) as error:
            cause = getattr(error, "orig", None) or error
            passes = isinstance(cause, self._passing)
            if passes and "readonly" in str(cause):
                self._shared.stale = True
            kind = LedgerUnavailable if passes else LedgerError
            raise kind(f"ledger {self._name}: {cause}") from error
