"""Commands on the audit of what ran on a cluster: check it, show it, report on it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import typer

from rsi_ray.audit_page import page
from rsi_ray.errors import RunError
from rsi_ray.ledgers import RUNS
from rsi_ray.oversight import Storage, Url, open_ledger
from rsi_ray.printable import printable
from rsi_ray.runs import versions_of_run
from rsi_ray.versions import versions_here
from safety import Ledger, system_clock
from safety import audit as chain
from safety import checkpoints as signed
from safety.checkpoints import CheckpointFile, Kept
from safety.database import state_folder, without_password
from safety.errors import IdentityError
from safety.history import history
from safety.identity import public_in, public_key
from safety.places import places_of
from safety.report import Software, report_on, utc
from safety.snapshot import take
from safety.unverified import Evidence

FAILURE = 1

Places = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoints", help="another folder of checkpoints than that beside the ledger; several may be"
    ),
]
Key = Annotated[
    str | None, typer.Option("--public-key", help="key that must have signed, 64 hexadecimal digits")
]

audit = typer.Typer(no_args_is_help=True, help="What ran and what was refused, row by row.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Witness:
    """What an audit is held against.

    Attributes:
        kept: checkpoints by place, the ledger's own folder first.
        public: the key; "" where there is none to check by.
        pinned: whether the user named it.
    """

    kept: Mapping[CheckpointFile, Kept]
    public: str
    pinned: bool

    @property
    def checkpoints(self) -> list[signed.Checkpoint]:
        """All of them, where there is a key to check them by."""
        return [found for kept in self.kept.values() for found in kept.checkpoints] if self.public else []

    def evidence(self, rows: Iterator[chain.Row]) -> Evidence:
        """What comes of holding the rows against it."""
        return Evidence(
            checked=signed.verify(rows, self.checkpoints, self.public),
            public=self.public,
            pinned=self.pinned,
            places=tuple(str(place.path) for place in self.kept),
            elsewhere=any(kept.checkpoints for kept in list(self.kept.values())[1:]),
        )

    def missing(self) -> str:
        """Why a check that succeeds proves nothing; "" where it does prove something."""
        for place in list(self.kept)[1:]:
            if not self.kept[place].checkpoints:
                return f"No checkpoint in {place.path}, which was named to check against"
        found = sum(len(kept.checkpoints) for kept in self.kept.values())
        if found and not self.public:
            return f"{found} checkpoints can't be checked without the key: name it by --public-key"
        return ""


def _witness(ledger: Ledger, storage: Path, places: list[Path] | None, key: str | None) -> Witness:
    """Read before the rows, which only grow.

    Raises:
        RunError: the key is none.
        CheckpointError: a place can't be read.
    """
    try:
        public = None if key is None else public_key(key.lower())
    except ValueError as error:
        raise RunError(f"--public-key {key}: {error}") from None
    folder = state_folder(ledger.url, storage)
    kept = {place: place.read() for place in places_of(ledger.url, folder, places or ())}
    return Witness(kept=kept, public=public or _key_beside(folder), pinned=key is not None)


def _key_beside(folder: Path) -> str:
    try:
        return public_in(folder) or ""
    except IdentityError as error:
        typer.echo(f"rsi-ray: {printable(str(error))}", err=True)
        return ""


@audit.command()
def verify(
    ledger: Url = None, storage: Storage = Path(RUNS), checkpoints: Places = None, public_key: Key = None
) -> None:
    """Check the audit's chain and what was signed of it: 0, or 1 and the first bad row."""
    with open_ledger(ledger, storage) as opened:
        witness = _witness(opened, storage, checkpoints, public_key)
        found = witness.evidence(opened.audit_stream())
    problem = found.checked.problem or witness.missing()
    if problem:
        typer.echo(printable(problem))
        raise typer.Exit(FAILURE)
    typer.echo(f"{found.checked.rows:,} rows, each follows from those before it")
    for line in (*_places(witness), *_doubts(found)):
        typer.echo(printable(line))


def _places(witness: Witness) -> Iterator[str]:
    """What each place holds."""
    for place, kept in witness.kept.items():
        if kept.newest:
            yield (
                f"{place.path}: {len(kept.checkpoints):,} checkpoints that agree, the newest of row "
                f"{kept.newest.seq:,} at {utc(kept.newest.at_ms)}"
            )
        if kept.unreadable:
            lines = ", ".join(map(str, kept.unreadable))
            yield f"{place.path}: not a checkpoint, torn by a crash or changed: line {lines}"


def _doubts(found: Evidence) -> Iterator[str]:
    """What the check doesn't prove."""
    checked = found.checked
    if checked.newest is None:
        yield "No checkpoint is there: rows cut off at the end don't show"
        return
    if checked.unsigned is not None:
        reason = checked.unwritten or "no reason is told"
        yield f"Row {checked.unsigned} should be signed and is not: {reason}"
    yield f"Signed by the key {found.public}"
    if not found.pinned:
        yield "The key lies beside the ledger: who replaces both can sign anew (see --public-key)"
    if not found.elsewhere:
        yield "The checkpoints lie beside the ledger: who writes there can cut both (see --checkpoints)"


@audit.command()
def show(
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    kind: Annotated[list[str] | None, typer.Option(help="deny, incident, kill, ...: these alone")] = None,
    sweep: Annotated[str | None, typer.Option(help="of this sweep")] = None,
    rule: Annotated[str | None, typer.Option(help="decided by this rule")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="so many of them, the latest")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object per line")] = False,
) -> None:
    """Print the rows of the audit, one a line."""
    with open_ledger(ledger, storage) as opened:
        chosen: Iterator[chain.Row] = (
            row
            for row in opened.audit_stream()
            if (not kind or row[1].kind in kind)
            and sweep in (None, row[1].sweep)
            and rule in (None, row[1].rule)
        )
        for seq, entry, row_hash in chosen if last is None else deque(chosen, maxlen=last):
            typer.echo(_json(seq, entry, row_hash) if as_json else _line(seq, entry))


def _json(seq: int, entry: chain.Entry, row_hash: str) -> str:
    row = {**asdict(entry), "seq": seq, "at": utc(entry.at_ms), "detail": chain.told(entry)}
    return json.dumps({**row, "hash": row_hash}, sort_keys=True)


def _line(seq: int, entry: chain.Entry) -> str:
    detail = chain.told(entry)
    words = [entry.rule, str(detail.pop("reason", "")), *_words(detail)]
    place = entry.key or entry.sweep
    text = (
        f"{seq:6}  {utc(entry.at_ms)}  {entry.kind:12} {place:34} {', '.join(filter(None, words))}".rstrip()
    )
    return printable(text)


def _words(detail: Mapping[str, Any]) -> Iterator[str]:
    """Names and values, without what is nothing."""
    for name, value in detail.items():
        if isinstance(value, dict):
            yield from _words(value)
        elif value not in (0, ""):
            yield f"{name} {str(value)[:12] if name in ('digest', 'policy') else value}"


@audit.command()
def report(
    out: Annotated[Path, typer.Option(help="FILE.html and FILE.json are written")],
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    checkpoints: Places = None,
    public_key: Key = None,
) -> None:
    """Write a report for a regulator or a safety board; 1 where the audit isn't whole."""
    with open_ledger(ledger, storage) as opened:
        found = _report(opened, storage, _witness(opened, storage, checkpoints, public_key))
    stem = out.with_suffix("") if out.suffix in (".html", ".json") else out
    stem.parent.mkdir(parents=True, exist_ok=True)
    texts = {"json": json.dumps(found, indent=2) + "\n", "html": page(found)}
    for suffix, text in texts.items():
        # a reason may hold half a character, which no file can
        Path(f"{stem}.{suffix}").write_text(text, encoding="utf-8", errors="replace")
    typer.echo(f"{stem}.html and {stem}.json")
    if not found["audit"]["whole"]:
        typer.echo(printable(found["audit"]["problem"]))
        raise typer.Exit(FAILURE)


def _report(ledger: Ledger, storage: Path, witness: Witness) -> dict[str, Any]:
    with ledger.reading() as connection:
        snapshot = take(connection)
    end = snapshot.head.seq if snapshot.head else 0

    def rows() -> Iterator[chain.Row]:  # those of the snapshot, though more are written meanwhile
        return takewhile(lambda row: row[0] <= end, ledger.audit_stream())

    software = Software(
        here=versions_here(),
        runs={
            sweep.name: versions
            for sweep in snapshot.sweeps
            if (versions := versions_of_run(storage, sweep.name))
        },
    )
    return report_on(
        snapshot,
        history(rows()),
        witness.evidence(rows()),
        software,
        url=without_password(ledger.url),
        now_ms=system_clock().wall_ms(),
    )
