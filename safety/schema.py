"""The ledger's tables, and how a database that holds them is opened."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from safety.errors import LedgerError

BUSY_TIMEOUT_MS = 30_000

metadata = sa.MetaData()

# a STRICT table knows INTEGER, which is 64 bits wide there
Int64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# and REAL, which is 64 bits wide there and 32 elsewhere
Float64: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")


def _table(name: str, *columns: Any) -> sa.Table:
    # STRICT: in another SQLite table an int64 overflow becomes a float
    return sa.Table(name, metadata, *columns, sqlite_strict=True)


def _state(*states: str) -> sa.CheckConstraint:
    return sa.CheckConstraint("state IN ({})".format(", ".join(f"'{state}'" for state in states)))


policies = _table(
    "policies",
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("limits", sa.Text, nullable=False),
)

# limits that bind every sweep, each version tighter than the one before
limit_versions = _table(
    "limit_versions",
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("limits", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at_ms", Int64, nullable=False),
    sa.Column("public", sa.Text, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
)

sweeps = _table(
    "sweeps",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("policy", sa.Text, sa.ForeignKey("policies.digest"), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("seen_ms", Int64, nullable=False),
    sa.Column("boot", sa.Text, nullable=False),
    # sweeps whose champions follow one another
    sa.Column("lineage", sa.Text, nullable=False, index=True),
    _state("open", "frozen", "closed"),
)

# a lineage that was shut down: no sweep of it is opened any more
stopped_lineages = _table(
    "stopped_lineages",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
)

promotions = _table(
    "promotions",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, unique=True, nullable=False),
    sa.Column("lineage", sa.Text, nullable=False, index=True),
    sa.Column("sweep", sa.Text, sa.ForeignKey("sweeps.name"), nullable=False),
    sa.Column("at_ms", Int64, nullable=False),
    sa.Column("old", Float64, nullable=False),
    sa.Column("new", Float64, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
)

# `target` is the cap that the limits name. `cap` is it, or what is out already where the limits were
# tightened below that; so that spent + held <= cap can be a CHECK at every moment.
budgets = _table(
    "budgets",
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("resource", sa.Text, primary_key=True),
    sa.Column("target", Int64, nullable=False),
    sa.Column("cap", Int64, nullable=False),
    sa.Column("held", Int64, nullable=False, default=0),
    sa.Column("spent", Int64, nullable=False, default=0),
    sa.Column("overrun", Int64, nullable=False, default=0),
    sa.CheckConstraint("held >= 0 AND spent >= 0 AND overrun >= 0", name="not_negative"),
    sa.CheckConstraint("spent + held <= cap AND target <= cap", name="within_cap"),
)

leases = _table(
    "leases",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, unique=True, nullable=False),
    # the key as plugins and workers know it: every attempt at a trial has one of its own
    sa.Column("trial", sa.Text, nullable=False, index=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("sweep", sa.Text, sa.ForeignKey("sweeps.name"), nullable=False, index=True),
    sa.Column("claim", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("fence", Int64, nullable=False, default=0),
    sa.Column("holder", sa.Text, nullable=False, default=""),
    sa.Column("deadline_ms", Int64, nullable=False, default=0),
    sa.Column("began_ms", Int64, nullable=False, default=0),
    sa.Column("boot", sa.Text, nullable=False, default=""),
    sa.Column("rule", sa.Text, nullable=False, default=""),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    _state("reserved", "active", "revoked", "void", "settled", "forfeited"),
)

holds = _table(
    "holds",
    sa.Column("lease", sa.Integer, sa.ForeignKey("leases.id"), primary_key=True),
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("resource", sa.Text, primary_key=True),
    sa.Column("amount", Int64, nullable=False),
    sa.Column("used", Int64),
)

# how near each trial has come to a capability ceiling
warnings = _table(
    "warnings",
    sa.Column("trial", sa.Text, primary_key=True),
    sa.Column("domain", sa.Text, primary_key=True),
    sa.Column("sweep", sa.Text, sa.ForeignKey("sweeps.name"), nullable=False, index=True),
    sa.Column("score", Float64, nullable=False),
    sa.Column("ceiling", Float64, nullable=False),
    sa.Column("level", Int64, nullable=False),
)

# the kill switch: thrown where there is a row
latch = _table(
    "latch",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at_ms", Int64, nullable=False),
    sa.CheckConstraint("id = 1", name="one_latch"),
)

audit = _table(
    "audit",
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("at_ms", Int64, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("sweep", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)


def open_database(url: str) -> sa.Engine:
    """Open the ledger's database and make its tables where they are missing.

    Raises:
        LedgerError: the URL is not understood, or the database can't be opened.
    """
    try:
        parsed = make_url(url)
        plain = parsed.database and not parsed.database.startswith("file:")
        if parsed.get_backend_name() == "sqlite" and plain:
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        # every transaction here is committed or rolled back by its own block: no second rollback
        engine = sa.create_engine(parsed, pool_reset_on_return=None)
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _configure_sqlite)
            sa.event.listen(engine, "begin", _begin_immediate)
        metadata.create_all(engine)
        older = _missing_columns(engine)
    # ImportError: the database's driver is not installed
    except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise LedgerError(f"ledger {without_password(url)}: cannot be opened: {cause}") from None
    if older:
        raise LedgerError(
            f"ledger {without_password(url)}: made by another version ({older[0]} is missing); "
            "keep it for its audit, and name a new one"
        )
    return engine


def _missing_columns(engine: sa.Engine) -> list[str]:
    """Columns of ours that a database which was there already lacks."""
    inspector = sa.inspect(engine)
    return [
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if column.name not in {known["name"] for known in inspector.get_columns(table.name)}
    ]


def without_password(url: str) -> str:
    """A database's URL as messages may show it."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return url if "@" not in url else "(a URL that can't be parsed)"


def _configure_sqlite(connection: Any, _record: object) -> None:
    # the driver must not begin transactions by itself: it would begin them deferred
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")
    _write_ahead(connection)


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
    connection.exec_driver_sql("BEGIN IMMEDIATE")
