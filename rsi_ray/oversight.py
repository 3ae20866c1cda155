"""Commands for whoever watches over a cluster: its kill switch, and the audit of what ran on it."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from rsi_ray.runs import LEDGER_FILE, RunError, sqlite_path
from safety import Ledger
from safety import audit as chain

FAILURE = 1

Url = Annotated[
    str | None, typer.Option("--ledger", help="URL of the ledger; that of the storage if left out")
]
Storage = Annotated[Path, typer.Option(help="folder of all runs")]
Reason = Annotated[str, typer.Option(help="why; it is kept in the audit")]
Who = Annotated[str | None, typer.Option("--by", help="who decides; this user if left out")]

RUNS = Path("rsi_results")

audit = typer.Typer(no_args_is_help=True, help="What ran and what was refused, row by row.")


@contextmanager
def opened_ledger(url: str | None, storage: Path) -> Iterator[Ledger]:
    """A ledger that is there already: a new one would watch over nothing.

    Raises:
        RunError: there is none.
    """
    url = url or f"sqlite:///{storage / LEDGER_FILE}"
    path = sqlite_path(url)
    if path is not None and not path.is_file():
        raise RunError(f"ledger {path}: no such file; expected a run's ledger, by --ledger URL or --storage")
    ledger = Ledger(url)
    try:
        yield ledger
    finally:
        ledger.close()


def kill(reason: Reason, ledger: Url = None, storage: Storage = RUNS, by: Who = None) -> None:
    """Stop every sweep on a ledger, and let none begin until `unkill`."""
    with opened_ledger(ledger, storage) as opened:
        held = opened.kill(reason, by or getpass.getuser())
    typer.echo(
        f"Killed: {held} leases are revoked; every worker stops at its next renewal, and nothing runs on "
        "this ledger until `rsi-ray unkill`"
    )


def unkill(reason: Reason, ledger: Url = None, storage: Storage = RUNS, by: Who = None) -> None:
    """Lift the kill switch; what it stopped is gone on with by `run --resume`."""
    with opened_ledger(ledger, storage) as opened:
        lifted = opened.unkill(reason, by or getpass.getuser())
    typer.echo("Sweeps may run again" if lifted else "The kill switch was not thrown")


@audit.command()
def verify(ledger: Url = None, storage: Storage = RUNS) -> None:
    """Check that each row follows from those before it: 0, or 1 and the first that doesn't."""
    with opened_ledger(ledger, storage) as opened:
        rows = opened.audit()
    broken = chain.verify(rows)
    if broken is not None:
        typer.echo(f"Row {broken} was changed, moved or taken out: it doesn't follow from those before it")
        raise typer.Exit(FAILURE)
    typer.echo(f"{len(rows)} rows, each follows from those before it; rows cut off at the end don't show")


@audit.command()
def show(
    ledger: Url = None,
    storage: Storage = RUNS,
    kind: Annotated[list[str] | None, typer.Option(help="deny, incident, kill, ...: these alone")] = None,
    sweep: Annotated[str | None, typer.Option(help="of this sweep")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="so many of them, the latest")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object per line")] = False,
) -> None:
    """Print the rows of the audit, one a line."""
    with opened_ledger(ledger, storage) as opened:
        rows = opened.audit()
    chosen = [
        (seq, entry, row_hash)
        for seq, entry, row_hash in rows
        if (not kind or entry.kind in kind) and sweep in (None, entry.sweep)
    ]
    for seq, entry, row_hash in chosen[-(last or 0) :]:
        typer.echo(_json(seq, entry, row_hash) if as_json else _line(seq, entry))


def _json(seq: int, entry: chain.Entry, row_hash: str) -> str:
    row = {**asdict(entry), "seq": seq, "at": _at(entry), "detail": json.loads(entry.detail)}
    return json.dumps({**row, "hash": row_hash}, sort_keys=True)


def _line(seq: int, entry: chain.Entry) -> str:
    detail = json.loads(entry.detail)
    words = [entry.rule, str(detail.pop("reason", "")), *_words(detail)]
    place = entry.key or entry.sweep
    return f"{seq:6}  {_at(entry)}  {entry.kind:12} {place:34} {', '.join(filter(None, words))}".rstrip()


def _words(detail: Mapping[str, Any]) -> Iterator[str]:
    """Names and values, without what is nothing."""
    for name, value in detail.items():
        if isinstance(value, dict):
            yield from _words(value)
        elif value not in (0, ""):
            yield f"{name} {value[:12] if name in ('digest', 'policy') else value}"


def _at(entry: chain.Entry) -> str:
    at = datetime.fromtimestamp(entry.at_ms / 1000, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
