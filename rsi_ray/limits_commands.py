"""Commands for the limits that bind every sweep of a ledger: show their versions, tighten and loosen them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from rsi_ray.ledgers import RUNS
from rsi_ray.oversight import Storage, Url, Who, open_ledger, sign, this_user
from rsi_ray.printable import printable
from safety import Ledger, Version, limits_from_yaml
from safety.database import state_folder
from safety.errors import IdentityError
from safety.identity import Identity, identity_in

limits = typer.Typer(no_args_is_help=True, help="The limits of every sweep: looser ones take an approval.")


@limits.command()
def show(
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object per version")] = False,
) -> None:
    """Print each version, who made it and whether its signature holds, and the fields of the last."""
    with open_ledger(ledger, storage) as opened:
        versions = opened.versions()
    for version in versions:
        typer.echo(_json(version) if as_json else _line(version))
    if as_json:
        return
    if versions:
        typer.echo("\n".join(_fields(json.loads(versions[-1].limits))))
    else:
        typer.echo("No limits bind every sweep; each is bound by its own")


@limits.command()
def tighten(
    file: Annotated[Path, typer.Argument(help="YAML file of limits, whole")],
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    by: Who = None,
) -> None:
    """Bind every sweep to these limits where they are tighter than its own; running trials too."""
    wanted = limits_from_yaml(file)
    with open_ledger(ledger, storage) as opened:
        version = opened.tighten(wanted, by or this_user(), _signer(opened, storage))
        sign(opened, storage)
    typer.echo(f"{_line(version)}\nIt binds every sweep; a trial over it ends at its next renewal")


def _signer(ledger: Ledger, storage: Path) -> Identity | None:
    """The governor's key, where this user may use it: nobody waits for a signature to be safer."""
    try:
        return identity_in(state_folder(ledger.url, storage))
    except IdentityError as error:
        typer.echo(f"rsi-ray: the version is not signed: {printable(str(error))}", err=True)
        return None


@limits.command()
def loosen(
    file: Annotated[Path, typer.Argument(help="YAML file of limits, whole")],
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    by: Who = None,
) -> None:
    """Ask for looser limits; called again when the approvers agree, it binds every sweep to them."""
    wanted = limits_from_yaml(file)
    with open_ledger(ledger, storage) as opened:
        identity = identity_in(state_folder(opened.url, storage))
        try:
            version = opened.loosen(wanted, by or this_user(), identity)
        finally:
            sign(opened, storage)
    typer.echo(
        f"{_line(version)}\nIt binds every sweep; where a sweep's own limits are tighter, they still hold"
    )


def _line(version: Version) -> str:
    at = datetime.fromtimestamp(version.at_ms / 1000, timezone.utc).isoformat(timespec="seconds")
    signed = f"signed by key {version.public[:12]}" if version.public else "not signed"
    if version.public and not version.is_authentic:
        signed += ", which does NOT hold"
    told = f"Version {version.number}, {version.digest[:12]}, {at[:19]}Z, by {version.by}, {signed}"
    return printable(told)


def _json(version: Version) -> str:
    told = {**asdict(version), "limits": json.loads(version.limits), "authentic": version.is_authentic}
    return json.dumps(told, sort_keys=True)


def _fields(values: Mapping[str, Any], place: str = "") -> list[str]:
    lines: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += _fields(value, f"{place}{name}.")
        elif value is not None:
            lines.append(printable(f"  {place}{name}: {value}"))
    return lines
