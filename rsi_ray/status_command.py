"""The command that shows what runs on a cluster and its ledger, and what runs there beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from rsi_ray import oversight
from rsi_ray.cluster_address import address_here
from rsi_ray.errors import RunError
from rsi_ray.ledgers import RUNS, from_anywhere
from rsi_ray.oversight import Storage, Url, open_ledger, sign
from rsi_ray.printable import printable
from rsi_ray.status import lines, status
from safety import Ledger, SafetyError, system_clock
from safety.database import state_folder, without_password
from safety.errors import ClusterUnreachable
from safety.kill_file import reason_in
from safety.ungoverned import TuneActor, incident, ungoverned

FAILURE = 1
# between two looks: what begins or ends meanwhile is in one of them alone
LOOK_SECONDS = 1.0
NOT_LOOKED: dict[str, Any] = {"looked": False, "why_not": "nobody asked for it"}
NONE_HERE: dict[str, Any] = {"looked": False, "why_not": "none was named, and none runs here"}

Address = Annotated[
    str | None, typer.Option(help="Ray cluster to look at; RAY_ADDRESS or the one that runs here if left out")
]
LedgerOnly = Annotated[bool, typer.Option("--ledger-only", help="look at no Ray cluster")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object")]


def status_of(ledger: Ledger, storage: Path) -> dict[str, Any]:
    """What a ledger and the folder of its governor say."""
    folder = state_folder(ledger.url, storage)
    url = without_password(ledger.url)
    return status(ledger.overview(), system_clock(), url=url, kill_file=reason_in(folder))


@oversight.app.command(name="status")
def show(
    job: Annotated[str | None, typer.Argument(help="id of a job that was submitted: of it alone")] = None,
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    address: Address = None,
    ledger_only: LedgerOnly = False,
    as_json: AsJson = False,
) -> None:
    """Show what runs on a ledger, and the trials on the Ray cluster that hold no lease of it."""
    if job is not None:
        import_module("rsi_ray.job_commands").show(job, address, as_json=as_json)
        return
    if ledger_only and address is not None:
        raise RunError("status: expected one of --address and --ledger-only")
    with open_ledger(ledger, storage) as opened:
        told = status_of(opened, storage)
        if not as_json:  # a cluster may be slow to answer, or not to
            typer.echo("\n".join(lines(told)))
        ray = NOT_LOOKED if ledger_only else _ray(opened, storage, address)
    if as_json:
        typer.echo(json.dumps({**told, "ray": ray}, sort_keys=True))
    elif not ledger_only:
        typer.echo("\n".join(_cluster(ray)))
    _end(ray, told["incidents"])


def _end(ray: Mapping[str, Any], incidents: Sequence[Mapping[str, Any]]) -> None:
    """A line for each thing that an operator must do something about."""
    problems = [_to_do(incident) for incident in incidents]
    if ray.get("ungoverned"):
        found = len(ray["ungoverned"])
        problems.append(f"{found} processes of Ray Tune's trials hold no lease of this ledger")
    elif not ray["looked"] and ray not in (NOT_LOOKED, NONE_HERE):
        problems.append(ray["why_not"])
    for problem in problems:
        typer.echo(f"rsi-ray: {printable(problem)}", err=True)
    if problems:
        raise typer.Exit(FAILURE)


def _to_do(incident: Mapping[str, Any]) -> str:
    verb = "acknowledge" if "acknowledged" in incident["pending"] else "release"
    number = incident["number"]
    return (
        f"lineage {incident['lineage']} is frozen by incident {number}: "
        f"`rsi-ray incidents {verb} {number} --reason WHY` comes next"
    )


def _ray(ledger: Ledger, storage: Path, asked: str | None) -> dict[str, Any]:
    """What runs on a cluster, or why that is not known."""
    address = asked or address_here()
    if address is None:
        return NONE_HERE
    try:
        found, strangers = _look(ledger, address)
    except ClusterUnreachable as error:
        return {"looked": False, "why_not": str(error)}
    told = _recorded(ledger, storage, strangers)
    return {"looked": True, "governed": found - len(strangers), "ungoverned": told}


def _look(ledger: Ledger, address: str) -> tuple[int, list[TuneActor]]:
    """The number of Tune's actors, and those that are ungoverned whenever one looks.

    Raises:
        ClusterUnreachable: the cluster doesn't say, or its governor keeps another ledger.
    """
    cluster_at = import_module("safety.cluster").cluster_at
    cluster = cluster_at(None if address == "auto" else address)
    own = f"Governor({without_password(from_anywhere(ledger.url))})"
    if cluster.governor not in ("", own):
        raise ClusterUnreachable(f"another ledger is the cluster's: {cluster.governor} runs there, not {own}")
    strangers = _strangers(ledger, cluster.actors)
    if strangers:
        time.sleep(LOOK_SECONDS)
        before = {one.actor for one in strangers}
        cluster = cluster_at(None if address == "auto" else address)
        strangers = [one for one in _strangers(ledger, cluster.actors) if one.actor in before]
    return len(cluster.actors), strangers


def _strangers(ledger: Ledger, actors: tuple[TuneActor, ...]) -> list[TuneActor]:
    running = ledger.overview().sweeps
    holders = frozenset[str]().union(*(sweep.holders for sweep in running))
    return list(ungoverned(actors, holders, {sweep.sweep.name for sweep in running}))


def _recorded(ledger: Ledger, storage: Path, strangers: list[TuneActor]) -> list[dict[str, Any]]:
    """Each with whether it is in the audit: a ledger that can't be written keeps nobody from being told."""
    if not strangers:
        return []
    told = []
    for one in strangers:
        try:
            ledger.note_once(one.actor, incident(one))
            audited = True
        except SafetyError as error:
            audited = False
            typer.echo(f"rsi-ray: not recorded in the audit: {printable(str(error))}", err=True)
        told.append({**asdict(one), "audited": audited})
    sign(ledger, storage)
    return told


def _cluster(ray: Mapping[str, Any]) -> list[str]:
    if not ray["looked"]:
        return [printable(f"The Ray cluster was not looked at: {ray['why_not']}")]
    rows = [
        f"  UNGOVERNED {one['says'] or one['class_name']}: actor {one['actor']}, class {one['class_name']}, "
        f"process {one['pid']} on {one['node']}, job {one['job']}"
        for one in ray["ungoverned"]
    ]
    head = f"Ray cluster: {ray['governed']} processes of governed trials, {len(rows)} of others"
    return [printable(line) for line in (head, *rows)]
