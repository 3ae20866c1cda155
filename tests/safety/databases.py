"""A ledger's database behind its back."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from safety.database import LOCK


@contextmanager
def raw(url: str) -> Iterator[Any]:
    """The driver's own connection; each statement is committed at once."""
    if url.startswith("sqlite"):
        database: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    else:
        plain = make_url(url).set(drivername="postgresql")
        database = psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True)
    try:
        yield database
    finally:
        database.close()


def deafen(database: Any) -> None:
    """Let the audit take no more rows."""
    if isinstance(database, sqlite3.Connection):
        refuse = "SELECT RAISE(ABORT, 'audit is full');"
        database.execute(f"CREATE TRIGGER deaf BEFORE INSERT ON audit BEGIN {refuse} END")
        return
    refuse = "BEGIN RAISE EXCEPTION 'audit is full'; END"
    database.execute(f"CREATE FUNCTION deaf() RETURNS trigger LANGUAGE plpgsql AS $$ {refuse} $$")
    database.execute("CREATE TRIGGER deaf BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION deaf()")


def lock(database: Any) -> None:
    """Begin a transaction that every ledger on it must wait for."""
    if isinstance(database, sqlite3.Connection):
        database.execute("BEGIN IMMEDIATE")
        return
    database.execute("BEGIN")
    database.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
