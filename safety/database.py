"""Databases that hold a ledger: how one is opened, and what each connection to it is set to."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from safety.errors import LedgerError, LedgerUnavailable, LedgerUrlError
from safety.file_system import network_under
from safety.schema import metadata

BUSY_TIMEOUT_MS = 30_000
# how long a server that is only tried is waited for
ANSWER_SECONDS = 10
# the number of the lock under which every transaction of a PostgreSQL database runs
LOCK = 7_241_093
# option of a connection that writes nothing
_READS = "reads"


def open_database(url: str) -> sa.Engine:
    """Open the ledger's database and make its tables where they are missing.

    Raises:
        LedgerError: the URL is not understood, the database can't be opened, or its file is a network's.
    """
    parsed = parsed_url(url)
    try:
        plain = parsed.database and not parsed.database.startswith("file:")
        if parsed.get_backend_name() == "sqlite" and plain:
            _make_folder_of(Path(str(parsed.database)).absolute())
        # every transaction here is committed or rolled back by its own block: no second rollback
        engine = sa.create_engine(parsed, pool_reset_on_return=None)
        if engine.dialect.name not in _SETTINGS:
            known = " or ".join(_SETTINGS)
            raise LedgerError(f"ledger {without_password(url)}: expected a database of {known}")
        configure, begin, columns = _SETTINGS[engine.dialect.name]
        sa.event.listen(engine, "connect", configure)
        sa.event.listen(engine, "begin", begin)
        _complete(engine, columns, url)
    # ImportError: the database's driver is not installed
    except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
        kind = LedgerUnavailable if isinstance(error, sa.exc.OperationalError) else LedgerError
        raise kind(f"ledger {without_password(url)}: cannot be opened: {_cause(error)}") from None
    return engine


def problem_of(url: str) -> str:
    """Why no ledger could be opened there; "" where one could. Nothing is made there."""
    try:
        parsed = parsed_url(url)
        if file := file_of(url):
            _require_own_disk(file)
            _require_writable(file)
        else:
            waits = {"connect_timeout": ANSWER_SECONDS} if "postgresql" in parsed.drivername else {}
            sa.create_engine(parsed, poolclass=sa.NullPool, connect_args=waits).connect().close()
    except LedgerError as error:
        return str(error)
    except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
        return f"ledger {without_password(url)}: cannot be opened: {_cause(error)}"
    return ""


def _cause(error: Exception) -> str:
    return (str(getattr(error, "orig", None) or error) or type(error).__name__).splitlines()[0]


def _make_folder_of(file: Path) -> None:
    """The folder of a database's file.

    Raises:
        OSError: it can't be made, or lies where several hosts reach it.
    """
    _require_own_disk(file)
    file.parent.mkdir(parents=True, exist_ok=True)


def _require_own_disk(file: Path) -> None:
    if network := network_under(file):
        raise OSError(
            f"lies on {network}, where locks don't hold; expected a disk of the host that the governor runs "
            "on, or a PostgreSQL URL"
        )


def _require_writable(file: Path) -> None:
    there = next(path for path in (file, *file.parents) if path.exists())
    if not os.access(there, os.W_OK):
        raise OSError(f"{there} can't be written")


def _complete(engine: sa.Engine, columns: str, url: str) -> None:
    """Make the tables that are missing.

    Where that fails no connection stays open: one that was opened read-only would keep all later ones so.

    Raises:
        LedgerError: those that were there are another version's.
    """
    try:
        with engine.begin() as connection:
            older = _made(connection, columns)
        if older:
            raise LedgerError(
                f"ledger {without_password(url)}: made by another version ({older[0]} is missing); "
                "keep it for its audit, and name a new one"
            )
    except BaseException:
        engine.dispose()
        raise


def _made(connection: sa.Connection, columns: str) -> list[str]:
    """Make the tables that are missing; columns of ours that those which were there already lack."""
    known = set(map(tuple, connection.exec_driver_sql(columns)))
    tables = {table for table, _ in known}
    missing = [table for table in metadata.sorted_tables if table.name not in tables]
    metadata.create_all(connection, missing, checkfirst=False)
    ours = [column for table in metadata.sorted_tables if table not in missing for column in table.columns]
    return [str(column) for column in ours if (column.table.name, column.name) not in known]


def parsed_url(url: str) -> sa.URL:
    """A database's URL in its parts.

    Raises:
        LedgerUrlError: it isn't one; what is shown of it holds no password.
    """
    try:
        return make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # ValueError: the port is no number
        raise LedgerUrlError(
            f"ledger {_shown(url)}: not a database URL; expected sqlite:///PATH or "
            "postgresql+psycopg://USER:PASSWORD@HOST/NAME, with @ : / of a password as %40 %3A %2F"
        ) from None


def without_password(url: str) -> str:
    """A database's URL as messages may show it."""
    try:
        parsed = parsed_url(url)
    except LedgerUrlError:
        return _shown(url)
    hidden = {name: "hidden" for name in parsed.query if "pass" in name}
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True)


def _shown(url: str) -> str:
    """Of what can't be parsed nobody knows where a password is."""
    return "(a URL that can't be parsed)" if "@" in url or "pass" in url else url


def state_folder(url: str, otherwise: Path) -> Path:
    """Where a ledger's governor keeps what is its own: beside the ledger where that is a file."""
    file = file_of(url)
    return file.parent if file else otherwise


def file_of(url: str) -> Path | None:
    """The file of a SQLite database; None where a server keeps it.

    Raises:
        LedgerUrlError: the URL is not understood.
    """
    parsed = parsed_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    return Path(str(parsed.database)).absolute() if is_file else None


def database_name(url: str) -> str:
    """What a ledger's files elsewhere are called by: the name of its database, without its folder.

    Raises:
        LedgerUrlError: the URL is not understood.
    """
    return Path(parsed_url(url).database or "ledger").name


def _configure_sqlite(connection: Any, _record: object) -> None:
    # the driver must not begin transactions by itself: it would begin them deferred
    connection.isolation_level = None
    try:
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        _write_ahead(connection)
    except sqlite3.Error:
        connection.close()  # not every SQLAlchemy does
        raise


def _write_ahead(connection: Any) -> None:
    # the step to WAL doesn't wait for another process that opens the same new file
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while not _is_write_ahead(connection):
        if time.monotonic() > until:
            raise sqlite3.OperationalError("database is locked")
        time.sleep(0.01)


def _is_write_ahead(connection: Any) -> bool:
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        return False
    return True


def _begin_immediate(connection: sa.Connection) -> None:
    # a deferred BEGIN that later writes is answered SQLITE_BUSY under contention
    reads = connection.get_execution_options().get(_READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _configure_postgresql(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("SET synchronous_commit = on")
        # it begins when a transaction waits for the lock below, and would hide what was committed meanwhile
        cursor.execute("SET default_transaction_isolation = 'read committed'")
    connection.commit()


def _begin_alone(connection: sa.Connection) -> None:
    # one transaction after the other, as on SQLite: the chain of the audit has one end
    if not connection.get_execution_options().get(_READS):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")


# by the name of SQLAlchemy's dialect: what is done with each new connection, and as each transaction begins;
# and all columns that there are, in one query where SQLAlchemy would ask for each table
_SETTINGS = {
    "sqlite": (
        _configure_sqlite,
        _begin_immediate,
        "SELECT place.name, found.name FROM sqlite_schema AS place, pragma_table_info(place.name) AS found",
    ),
    "postgresql": (
        _configure_postgresql,
        _begin_alone,
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = current_schema()",
    ),
}


def for_reading(engine: sa.Engine) -> sa.Engine:
    """The same database; each transaction sees one state of it, and no writer waits for it."""
    options: dict[str, Any] = {_READS: True}
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "REPEATABLE READ"
    return engine.execution_options(**options)
