"""Commands for runs as jobs of a cluster: submitted, followed, stopped."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rsi_ray.errors import RunError, SweepError
from rsi_ray.ledgers import RUNS, from_anywhere
from rsi_ray.oversight import app, this_user
from rsi_ray.parcel import NOT_CARRIED, Parcel, parcel_of
from rsi_ray.printable import printable
from safety import Document, read_yaml
from safety.database import parsed_url
from safety.names import plain_name
from safety.report import utc

if TYPE_CHECKING:
    from rsi_ray.jobs import Job, Jobs

FAILURE = 1
PACKAGES = ("rsi_ray", "search_spaces", "safety")

Address = Annotated[
    str | None,
    typer.Option(help="URL of the cluster's dashboard; RAY_API_SERVER_ADDRESS or the one here if left out"),
]


def an_id(id: str) -> str:
    """A job's id, which is a part of URLs.

    Raises:
        RunError: it is none.
    """
    if not id.strip(".") or set(id) & set("/?#%"):
        raise RunError(f"job {id!r}: expected an id, as `submit` has told it")
    return id


JobId = Annotated[str, typer.Argument(metavar="JOB", help="its id, as `submit` has told it", callback=an_id)]


def jobs_at(address: str | None) -> Jobs:
    """A cluster's jobs; Ray is loaded here."""
    jobs: Jobs = import_module("rsi_ray.jobs").Jobs(address)
    return jobs


@app.command()
def submit(
    config: Annotated[Path, typer.Argument(help="YAML file")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="further ones of `rsi-ray run`")
    ] = None,
    address: Address = None,
    storage: Annotated[
        str | None, typer.Option(help="folder of all runs, on the cluster; below its user's home if relative")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="run that was stopped, by name")] = None,
    ship: Annotated[list[Path] | None, typer.Option(help="further file or folder to carry along")] = None,
    python: Annotated[str, typer.Option(help="interpreter of the cluster's head")] = "python3",
    follow: Annotated[bool, typer.Option(help="show what it prints until it has ended")] = True,
) -> None:
    """Run a file as a job of a cluster, with these packages, what the file names beside it, and own classes.

    The exit code is that of `rsi-ray run` there; 1 where it was stopped. Ctrl-C leaves the job running.
    """
    document = read_yaml(config)
    parcel = parcel_of(document, here=Path.cwd(), further=ship or [])
    given, name, artifacts = _checked(document, parcel)
    for further in _artifacts_among(options or []):
        _require_no_key(further, "--artifacts")
    # a run that is resumed may be in the store alone, and its file with it
    resumed = ["--resume", str(resume), *(["--artifacts", artifacts] if artifacts else [])]
    words = [python, "-m", "rsi_ray", "run", *(resumed if resume else [config.name])]
    entrypoint = " ".join(
        [shlex.join(words), "--storage", _place(storage or given), *map(shlex.quote, options or [])]
    )
    jobs = jobs_at(address)
    id = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    with tempfile.TemporaryDirectory() as folder:
        parcel.put(Path(folder) / "job")
        modules = _packages(Path(folder))
        told = {"project": "rsi-ray", "file": config.name, "by": this_user()}
        id = jobs.submit(entrypoint, id=id, folder=Path(folder) / "job", modules=modules, metadata=told)
    typer.echo(printable(f"Job {id}: `rsi-ray logs {id}` shows it, `rsi-ray stop {id}` ends it"))
    if follow:
        _follow(jobs, id)


def _checked(document: Document, parcel: Parcel) -> tuple[str, str, str]:
    """Storage, name and artifacts, if any, of a sweep whose file is right, as far as it can be told here.

    Raises:
        DocumentError: it is wrong.
        LedgerUrlError: its ledger is none.
        SweepError: its ledger would be lost with the job's folder, or there is a key in its artifacts.
    """
    data = document.data if isinstance(document.data, dict) else {}
    ledger = data.get("ledger")
    if isinstance(ledger, str) and parsed_url(ledger) and from_anywhere(ledger) != ledger:
        raise SweepError(
            f"{document.where(('ledger',))}: ledger: {ledger} would lie in the job's own folder, which is "
            "gone with it; expected an absolute path on the cluster"
        )
    artifacts = str(data.get("artifacts") or "")
    if artifacts:
        _require_no_key(artifacts, f"{document.where(('artifacts',))}: artifacts")
    if parcel.left:
        left = printable(", ".join(parcel.left))
        typer.echo(f"Not carried, since its path is absolute; the cluster's own is used: {left}")
    if parcel.elsewhere:
        missing = printable(", ".join(parcel.elsewhere))
        typer.echo(f"Not checked here, since it is not on this machine: {missing}")
        return str(data.get("storage") or RUNS), _name(data.get("name")), artifacts
    commands = import_module("rsi_ray.commands")
    commands.find_own_classes(Path(document.source).parent)
    parsed = import_module("rsi_ray.config").load_config(Path(document.source))
    return parsed.storage, parsed.name, artifacts


def _artifacts_among(options: Sequence[str]) -> Iterator[str]:
    """The URIs of stores that options of `rsi-ray run` name."""
    for before, one in pairwise(["", *options]):
        if before == "--artifacts":
            yield one
        elif one.startswith("--artifacts="):
            yield one.partition("=")[2]


def _require_no_key(artifacts: str, where: str) -> None:
    try:  # before a key in it is told to the cluster
        import_module("rsi_ray.artifact_store").store_uri(artifacts)
    except ValueError as error:
        raise SweepError(f"{where}: {error}") from None


def _name(given: object) -> str:
    """For the job's id; whether the sweep may be called so is found there."""
    try:
        return plain_name(str(given or ""))
    except ValueError:
        return "sweep"


def _place(storage: str) -> str:
    """A folder on the cluster, for its shell: a relative one would be lost with the job's own folder."""
    if storage.startswith("/"):
        return shlex.quote(storage)
    below = "" if storage == "~" else storage.removeprefix("~/")
    return f'"$HOME"/{shlex.quote(below)}' if below else '"$HOME"'


def _packages(folder: Path) -> list[Path]:
    """These packages, without what Python has left in them."""
    for name in PACKAGES:
        source = Path(str(import_module(name).__file__)).parent
        shutil.copytree(source, folder / name, ignore=NOT_CARRIED)
    return [folder / name for name in PACKAGES]


@app.command()
def logs(
    job: JobId,
    address: Address = None,
    follow: Annotated[bool, typer.Option(help="until it has ended")] = False,
) -> None:
    """Show what a job has printed."""
    jobs = jobs_at(address)
    if follow:
        _follow(jobs, job)
    else:
        _show(jobs.log(job))


@app.command()
def stop(job: JobId, address: Address = None) -> None:
    """End a job: its sweep is closed, and `submit --resume` goes on with it."""
    ended = jobs_at(address).stop(job)
    typer.echo(line_of(ended))


def show(id: str, address: str | None, *, as_json: bool) -> None:
    """Show what is known of a job."""
    job = jobs_at(address).job(an_id(id))
    typer.echo(json.dumps(asdict(job), sort_keys=True) if as_json else line_of(job))


def _follow(jobs: Jobs, id: str) -> None:
    try:
        ended = jobs.follow(id, _show)
    except KeyboardInterrupt:
        typer.echo(printable(f"Job {id} goes on; `rsi-ray logs {id} --follow` shows it again"))
        raise typer.Exit(130) from None
    if ended.exit_code is None:
        typer.echo(line_of(ended), err=True)
    raise typer.Exit(_code(ended))


def _code(ended: Job) -> int:
    """Of `rsi-ray run` there."""
    if ended.exit_code is not None:
        return ended.exit_code
    return 0 if ended.state == "SUCCEEDED" else FAILURE


def _show(text: str) -> None:
    sys.stdout.write("".join(one if one in "\n\t" else printable(one) for one in text))
    sys.stdout.flush()


def line_of(job: Job) -> str:
    """What is known of a job, in a line."""
    began = "" if job.started_ms is None else f", begun {utc(job.started_ms)}"
    ended = "" if job.ended_ms is None else f", ended {utc(job.ended_ms)}"
    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    return printable(f"Job {job.id}: {job.state.lower()}{began}{ended}{code}. {' '.join(job.told.split())}")
