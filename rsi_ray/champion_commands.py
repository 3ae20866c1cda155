"""Commands for champions: what a lineage has come to, its way there, back, and out."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from rsi_ray.champion import FOLDER, ChampionStore
from rsi_ray.champion_version import Version
from rsi_ray.errors import ChampionError
from rsi_ray.ledgers import RUNS
from rsi_ray.modification import architecture_difference
from rsi_ray.oversight import Reason, Storage, Url, Who, app, open_ledger, sign, this_user
from rsi_ray.printable import printable
from safety import Ledger
from safety.report import utc

FAILURE = 2

champion = typer.Typer(no_args_is_help=True, help="Champions of a lineage: versions, history, the way back.")
app.add_typer(champion, name="champion")


class Form(str, Enum):
    """How a champion leaves."""

    safetensors = "safetensors"
    torch_export = "torch_export"
    python = "python"


Lineage = Annotated[str | None, typer.Option(help="its name; the only one in the storage if left out")]
Name = Annotated[str, typer.Argument(help="generation, name, beginning of its digest, or `current`")]
AsJson = Annotated[bool, typer.Option("--json", help="a JSON object per version or change")]


@contextmanager
def _opened(url: str | None, storage: Path, lineage: str | None) -> Iterator[tuple[Ledger, ChampionStore]]:
    with open_ledger(url, storage) as ledger:
        yield ledger, ChampionStore(storage / FOLDER / _lineage(storage, lineage), ledger)


def _lineage(storage: Path, named: str | None) -> str:
    found = sorted(path.name for path in (storage / FOLDER).glob("*") if path.is_dir())
    if named in found:
        return str(named)
    if named is None and len(found) == 1:
        return found[0]
    known = ", ".join(found) or "none yet"
    raise ChampionError(
        f"champions {storage / FOLDER}: expected --lineage with one of those there, which are: {known}"
    )


@champion.command("list")
def list_versions(
    lineage: Lineage = None, ledger: Url = None, storage: Storage = Path(RUNS), as_json: AsJson = False
) -> None:
    """Print every version of a lineage, the champion marked; 2 where a file isn't what it was."""
    with _opened(ledger, storage, lineage) as (_, store):
        versions, problems = store.versions()
    if as_json:
        for version in versions:
            typer.echo(json.dumps(_told(version), sort_keys=True))
    else:
        typer.echo("\n".join(_table([_row(version) for version in versions])))
    for problem in problems:
        typer.echo(f"rsi-ray: {printable(problem)}", err=True)
    if problems:
        raise typer.Exit(FAILURE)


@champion.command()
def show(
    version: Name = "current",
    lineage: Lineage = None,
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    as_json: AsJson = False,
) -> None:
    """Print what a version is, what was measured of it, who approved it, and where it comes from."""
    with _opened(ledger, storage, lineage) as (_, store):
        found = store.find(version)
        line = list(store.ancestors(found))
    told = {
        **_told(found),
        "ancestors": [one.name for one in line],
        "difference": _difference(line[:1], found),
    }
    if as_json:
        typer.echo(json.dumps({**told, "manifest": json.loads(found.manifest.canonical)}, sort_keys=True))
    else:
        typer.echo("\n".join(_details(found, told)))


@champion.command()
def diff(
    old: Name,
    new: Name,
    lineage: Lineage = None,
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    as_json: AsJson = False,
) -> None:
    """Print every field in which the architectures of two versions differ."""
    with _opened(ledger, storage, lineage) as (_, store):
        first, second = store.find(old), store.find(new)
    for change in architecture_difference(first.manifest.spec, second.manifest.spec):
        typer.echo(json.dumps(asdict(change)) if as_json else printable(str(change)))


@champion.command()
def rollback(
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="version; the last known safe one if left out")] = None,
    lineage: Lineage = None,
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    by: Who = None,
) -> None:
    """Make an earlier version the champion again; those after it stay in the history."""
    with _opened(ledger, storage, lineage) as (opened, store):
        version = store.find(to) if to else store.last_known_safe()

        def tell(found: Version) -> None:
            artifact = "" if found.state == "base" else found.artifact
            opened.rollback(store.lineage, artifact, reason, by or this_user())

        try:
            found = store.roll_back(version, tell)
        finally:
            sign(opened, storage)
    typer.echo(f"{found.name} is the champion of {store.lineage} again")


@champion.command()
def export(
    version: Name,
    out: Annotated[Path, typer.Option(help="new file")],
    form: Annotated[
        Form, typer.Option("--format", help="python writes the weights beside its file")
    ] = Form.safetensors,
    lineage: Lineage = None,
    ledger: Url = None,
    storage: Storage = Path(RUNS),
) -> None:
    """Write a version for elsewhere, and say so where nobody has approved it."""
    if str(Path.cwd()) not in sys.path:  # a space of the user's own is found from here
        sys.path.insert(0, str(Path.cwd()))
    with _opened(ledger, storage, lineage) as (_, store):
        found = store.find(version)
    exporting = import_module("rsi_ray.champion_export")
    for path in exporting.FORMATS[form.value](found, out):
        typer.echo(f"{path}")
    told = exporting.unapproved(found)
    if told:
        typer.echo(f"rsi-ray: version {found.name}: {told}", err=True)


# --- what is printed


def _told(version: Version) -> dict[str, Any]:
    """What there is to say of a version, as plain values."""
    manifest, promoted = version.manifest, version.promoted
    domains, score = _measured(version)
    gain = promoted.promotion.gain if promoted else None
    return {
        "version": version.name,
        "generation": manifest.generation,
        "state": version.state,
        "current": version.current,
        "artifact": version.artifact,
        "score": promoted.promotion.new if promoted else score,
        "delta": None if gain is None else float(gain),
        "domains": domains,
        "params": manifest.params,
        "train_flops": str(manifest.train_flops),
        "total_flops": str(manifest.total_flops),
        "promoted": utc(promoted.promotion.at_ms) if promoted else None,
        "request": promoted.request if promoted else "",
        "approvals": [asdict(decision) for decision in promoted.decisions] if promoted else [],
    }


def _measured(version: Version) -> tuple[dict[str, float], float | None]:
    """The evaluator's scores of the very weights: of each domain, and of all of them."""
    try:
        own = json.loads(version.evidence or b"{}")["measurements"][0]
        return dict(own["domains"]), float(own["score"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return {}, None


def _difference(parents: Sequence[Version], version: Version) -> list[str]:
    return [
        str(change)
        for parent in parents
        for change in architecture_difference(parent.manifest.spec, version.manifest.spec)
    ]


_COLUMNS = ("", "generation", "digest", "score", "delta", "params", "state", "promoted", "approved by")


def _row(version: Version) -> tuple[str, ...]:
    told = _told(version)
    return (
        "*" if version.current else "",
        str(version.manifest.generation),
        version.artifact[:12],
        _number(told["score"], ".4f"),
        _number(told["delta"], "+.4f"),
        f"{version.manifest.params:,}",
        version.state,
        told["promoted"] or "",
        ", ".join(decision["by"] for decision in told["approvals"]),
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None or math.isnan(value) else format(value, form)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    return [
        printable("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))).rstrip()
        for row in (_COLUMNS, *rows)
    ]


def _details(version: Version, told: Mapping[str, Any]) -> list[str]:
    manifest = version.manifest
    own, ancestors = manifest.train_flops, manifest.ancestor_flops
    lines = [
        f"{version.name}: {'the champion' if version.current else version.state} of {manifest.lineage}",
        f"  artifact: {version.artifact}",
        f"  score: {_number(told['score'], '.6g') or 'none'}{_delta(told['delta'])}",
        *(f"  {name}: {score:.6g}" for name, score in told["domains"].items()),
        f"  parameters: {manifest.params:,}",
        f"  training: {own:,} FLOPs, and {ancestors:,} of its ancestors",
        f"  ancestors: {', '.join(told['ancestors']) or 'none'}",
        f"  trained as: {manifest.trial or 'nobody told'}",
        f"  promoted: {told['promoted'] or 'never'}",
        *(f"  {one['by']} approves: {one['reason']}" for one in told["approvals"]),
        *(f"  changed: {change}" for change in told["difference"]),
        f"  spec: {json.dumps(manifest.spec, sort_keys=True)}",
    ]
    return [printable(line) for line in lines]


def _delta(delta: float | None) -> str:
    return "" if delta is None else f", better by {delta:.6g}"
