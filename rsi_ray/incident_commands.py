"""Commands for lineages that were shut down: what is known of it, and who lets them go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rsi_ray.alerts import AlertsConfig, kept, ring, sinks_of
from rsi_ray.emergency import FOLDER
from rsi_ray.ledgers import RUNS
from rsi_ray.oversight import Reason, Storage, Url, Who, app, open_ledger, sign, this_user
from rsi_ray.printable import printable
from rsi_ray.status import incident_line, told_of
from safety import DocumentError, Ledger
from safety.database import without_password
from safety.emergency import Incident

incidents = typer.Typer(no_args_is_help=True, help="Lineages that were shut down, and who lets them go on.")
app.add_typer(incidents, name="incidents")

Number = Annotated[int, typer.Argument(help="of the incident")]
AsJson = Annotated[bool, typer.Option("--json", help="a JSON object per incident")]


@incidents.command("list")
def list_incidents(ledger: Url = None, storage: Storage = Path(RUNS), as_json: AsJson = False) -> None:
    """Print every incident, the newest last, and what is left to do."""
    with open_ledger(ledger, storage) as opened:
        _catch_up(opened, storage)
        found = [told_of(incident) for incident in opened.incidents()]
    for told in found:
        typer.echo(json.dumps(told, sort_keys=True) if as_json else printable(incident_line(told)))
    if not (found or as_json):
        typer.echo("No lineage was shut down")


@incidents.command()
def show(number: Number, ledger: Url = None, storage: Storage = Path(RUNS), as_json: AsJson = False) -> None:
    """Print what is known of an incident: each step, when, by whom, and where its state is saved."""
    with open_ledger(ledger, storage) as opened:
        opened.incident(number)
        _catch_up(opened, storage)
        told = told_of(opened.incident(number))
    if as_json:
        typer.echo(json.dumps(told, sort_keys=True))
        return
    for line in _lines(told):
        typer.echo(printable(line))


def _lines(told: dict[str, Any]) -> list[str]:
    steps = [
        f"  {step['step']} {step['at']} by {step['by']}" + (f": {step['told']}" if step["told"] else "")
        for step in told["steps"]
    ]
    safe = told["safe"] or "what the lineage began with"
    return [incident_line(told), f"  rule: {told['rule']}, sweep {told['sweep']}", f"  safe: {safe}", *steps]


@incidents.command()
def acknowledge(
    number: Number, reason: Reason, ledger: Url = None, storage: Storage = Path(RUNS), by: Who = None
) -> None:
    """Say that you know of an incident: its alert rests, and the lineage stays frozen."""
    with open_ledger(ledger, storage) as opened:
        is_new = opened.acknowledge(number, reason, by or this_user())
        sign(opened, storage)
        _catch_up(opened, storage)
        line = incident_line(told_of(opened.incident(number)))
    typer.echo(printable(line if is_new else f"Acknowledged before; {line}"))


@incidents.command()
def release(
    number: Number, reason: Reason, ledger: Url = None, storage: Storage = Path(RUNS), by: Who = None
) -> None:
    """Let a lineage go on from its last known safe champion, if the approvers that the limits name agree."""
    with open_ledger(ledger, storage) as opened:
        try:
            is_new = opened.release(number, reason, by or this_user())
        finally:
            sign(opened, storage)
        lineage = opened.incident(number).lineage
    told = "may run again" if is_new else "was released before"
    typer.echo(printable(f"Incident {number}: lineage {lineage} {told}"))


def _catch_up(ledger: Ledger, storage: Path) -> None:
    """Do of each shutdown what a run that crashed has left undone, as far as it takes no champion's files."""
    for incident in ledger.incidents():
        if not incident.is_released:
            revoked = ledger.revoke_leases(incident.number, this_user())
            if not revoked.is_acknowledged and not revoked.step("alerted"):
                _alert(ledger, revoked, storage)


def _alert(ledger: Ledger, incident: Incident, storage: Path) -> None:
    try:
        config = kept(storage / FOLDER, incident.lineage)
    except DocumentError as error:
        typer.echo(f"rsi-ray: {error}", err=True)
        config = AlertsConfig()
    sinks = sinks_of(config, log=False)  # who calls this reads it anyway
    if sinks:
        ring(
            ledger, incident, sinks, config.pace, problems=(), ledger=without_password(ledger.url),
            by=this_user(), seconds=0.0,
        )  # fmt: skip
