"""The audit: one row for each change of state, in its transaction, chained by hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from safety import schema
from safety.clock import Clock
from safety.prepared import Prepared, insertion

GENESIS = "0" * 64

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


def canonical(detail: Mapping[str, object]) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(detail, sort_keys=True, separators=(",", ":"))


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


def rows(connection: sa.Connection) -> list[tuple[int, Entry, str]]:
    """All rows in order, as `verify` takes them."""
    found = []
    for row in connection.execute(sa.select(schema.audit).order_by(schema.audit.c.seq)).mappings():
        fields = dict(row)
        seq, row_hash = fields.pop("seq"), fields.pop("hash")
        found.append((seq, Entry(**fields), row_hash))
    return found


def verify(rows: Iterable[tuple[int, Entry, str]]) -> int | None:
    """Number of the first row that doesn't follow from those before it; None where all do.

    Args:
        rows: (seq, entry, hash) in order.
    """
    previous, expected = GENESIS, 1
    for seq, entry, row_hash in rows:
        if seq != expected or row_hash != chained(previous, seq, entry):
            return expected
        previous, expected = row_hash, expected + 1
    return None
