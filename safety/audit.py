"""The audit: one row for each change of state, in its transaction, chained by hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlalchemy as sa

from safety import schema
from safety.clock import Clock
from safety.prepared import Prepared, insertion

GENESIS = "0" * 64
# rows that are read at once
PAGE = 2_000

_table = schema.audit
_LAST = Prepared(sa.select(_table.c.seq, _table.c.hash).order_by(_table.c.seq.desc()).limit(1))
_INSERT = Prepared(insertion(_table))


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row of the audit, without its hash.

    Attributes:
        at_ms: Unix time in milliseconds.
        kind: what happened: reserve, deny, activate, settle, void, forfeit, revoke, incident, ...
        sweep: name of the sweep, or "".
        key: key of the lease, or "".
        rule: the rule that decided, or "".
        detail: the numbers, as canonical JSON.
    """

    at_ms: int
    kind: str
    sweep: str = ""
    key: str = ""
    rule: str = ""
    detail: str = "{}"


# its number, what it says, its hash
Row: TypeAlias = tuple[int, Entry, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The chain's end: who knows it knows every row before it.

    Attributes:
        seq: number of the last row.
        hash: its hash.
        ledger: hash of the first row, by which a ledger is known.
    """

    seq: int
    hash: str
    ledger: str


def canonical(detail: Mapping[str, object]) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(detail, sort_keys=True, separators=(",", ":"))


def told(entry: Entry) -> dict[str, Any]:
    """A row's detail; nothing where it was changed into something that is none."""
    try:
        detail = json.loads(entry.detail)
    except (ValueError, RecursionError):
        return {}
    return detail if isinstance(detail, dict) else {}


def chained(previous: str, seq: int, entry: Entry) -> str:
    """Hash of a row: SHA-256 over the hash before it, its number and its fields."""
    fields = [previous, seq, entry.at_ms, entry.kind, entry.sweep, entry.key, entry.rule, entry.detail]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def append(connection: sa.Connection, entry: Entry) -> None:
    """Add a row within the caller's transaction."""
    last, previous = _LAST.first(connection) or (0, GENESIS)
    seq = last + 1
    _INSERT.change(
        connection,
        seq=seq,
        at_ms=entry.at_ms,
        kind=entry.kind,
        sweep=entry.sweep,
        key=entry.key,
        rule=entry.rule,
        detail=entry.detail,
        hash=chained(previous, seq, entry),
    )


def note(
    connection: sa.Connection,
    clock: Clock,
    kind: str,
    *,
    sweep: str = "",
    key: str = "",
    rule: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Add a row that says what happens in the caller's transaction."""
    text = canonical(detail or {})
    append(connection, Entry(at_ms=clock.wall_ms(), kind=kind, sweep=sweep, key=key, rule=rule, detail=text))


def rows(connection: sa.Connection, *, after: int | None = None, limit: int | None = None) -> list[Row]:
    """Rows in order, as `verify` takes them: all, or so many behind a number."""
    query = sa.select(schema.audit).order_by(schema.audit.c.seq).limit(limit)
    if after is not None:
        query = query.where(schema.audit.c.seq > after)
    return [
        (seq, Entry(at_ms=at_ms, kind=kind, sweep=sweep, key=key, rule=rule, detail=detail), row_hash)
        for seq, at_ms, kind, sweep, key, rule, detail, row_hash in connection.execute(query)
    ]


def stream(reading: Callable[[], AbstractContextManager[sa.Connection]]) -> Iterator[Row]:
    """All rows in order, a page at a time: rows are only ever added, so that no page changes."""
    page = _page(reading, None)
    while page:
        yield from page
        page = _page(reading, page[-1][0])


def _page(reading: Callable[[], AbstractContextManager[sa.Connection]], after: int | None) -> list[Row]:
    with reading() as connection:
        return rows(connection, after=after, limit=PAGE)


def head(connection: sa.Connection) -> Head | None:
    """The chain's end; None where there is no row."""
    return _head(connection, sa.true())


def head_after(connection: sa.Connection, seq: int, kinds: Collection[str]) -> Head | None:
    """The chain's end, where a row of one of these kinds came after this number."""
    later = schema.audit.alias()
    return _head(connection, sa.exists().where(later.c.seq > seq, later.c.kind.in_(kinds)))


def _head(connection: sa.Connection, where: sa.ColumnElement[bool]) -> Head | None:
    table, every = schema.audit, schema.audit.alias()
    first = sa.select(every.c.hash).order_by(every.c.seq).limit(1).scalar_subquery()
    query = sa.select(table.c.seq, table.c.hash, first).where(where).order_by(table.c.seq.desc()).limit(1)
    found = connection.execute(query).first()
    return None if found is None else Head(seq=found[0], hash=found[1], ledger=found[2])


def hash_of_newest(connection: sa.Connection, kind: str) -> str:
    """Hash of the newest row of a kind; "" where there is none."""
    query = sa.select(_table.c.hash).where(_table.c.kind == kind).order_by(_table.c.seq.desc()).limit(1)
    return connection.execute(query).scalar() or ""


def hash_of(connection: sa.Connection, seq: int) -> str | None:
    """Hash of a row; None where there is none of this number."""
    table = schema.audit
    return connection.execute(sa.select(table.c.hash).where(table.c.seq == seq)).scalar()


def knows(connection: sa.Connection, kind: str, rule: str, key: str) -> bool:
    """Whether there is a row of this kind, rule and key."""
    same = _table.c.kind == kind, _table.c.rule == rule, _table.c.key == key
    return connection.execute(sa.select(_table.c.seq).where(*same).limit(1)).first() is not None


def follows(row: Row, previous: str, expected: int) -> bool:
    """Whether a row is of this number and comes after the one with this hash."""
    seq, entry, row_hash = row
    return seq == expected and row_hash == chained(previous, seq, entry)


def verify(rows: Iterable[Row]) -> int | None:
    """Number of the first row that doesn't follow from those before it; None where all do.

    Args:
        rows: (seq, entry, hash) in order.
    """
    previous, expected = GENESIS, 1
    for row in rows:
        if not follows(row, previous, expected):
            return expected
        previous, expected = row[2], expected + 1
    return None
