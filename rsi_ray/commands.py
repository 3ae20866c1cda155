"""The commands that train; what they load takes seconds."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import optuna
import typer
from rich.console import Console

from rsi_ray import audit_commands, limits_commands, loop_command, oversight, rehearsal
from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.cluster_address import have_joined
from rsi_ray.config import (
    SweepConfig,
    config_of_run,
    load_config,
    load_example,
)
from rsi_ray.connection import local_ray
from rsi_ray.disk import RUN_FILE
from rsi_ray.errors import SweepError
from rsi_ray.example_files import example_file, examples
from rsi_ray.ledgers import LEDGER_FILE, RUNS, from_anywhere
from rsi_ray.mirror import LOOP_FILE, bring_back
from rsi_ray.places import problems_of_places
from rsi_ray.printable import printable
from rsi_ray.replay import replay as replay_trial
from rsi_ray.result import Result
from rsi_ray.runs import BESIDE, find_trial, is_run, read_about, run_folder
from rsi_ray.summary import summary
from rsi_ray.sweep import quiet_tune, run_sweep
from rsi_ray.view import watching
from rsi_ray.wiring import sweep_of
from safety.actor import connect, connect_to_any
from safety.database import without_password
from safety.drill import run_drill
from safety.drills import missed

FAILURE, INTERRUPTED = 1, 130

app = oversight.app
for home in oversight.HOMES.values():
    import_module(home)
app.add_typer(audit_commands.audit, name="audit")
app.add_typer(limits_commands.limits, name="limits")
app.command()(rehearsal.simulate)


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="YAML file; the built-in job if left out")] = None,
    example: Annotated[str | None, typer.Option(help=f"one of {', '.join(examples())}")] = None,
    resume: Annotated[str | None, typer.Option(help="run that was stopped, by name or folder")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="candidates that are trained")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="of sampler and candidates")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="trials at a time")] = None,
    seconds: Annotated[int | None, typer.Option(min=1, help="time after which the sweep ends")] = None,
    storage: Annotated[str | None, typer.Option(help="folder of all runs")] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(help="URI of a store for checkpoints, weights and results: s3://bucket/prefix"),
    ] = None,
    generations: Annotated[
        int | None, typer.Option(min=1, help="of the recursive loop: champions that may follow one another")
    ] = None,
    approve: Annotated[
        loop_command.Approve | None,
        typer.Option(help="who decides of a promotion; ask on a terminal, and wait elsewhere, if left out"),
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="file of a policy, for `--approve policy`")] = None,
    key: Annotated[Path | None, typer.Option(help="your key, where the limits name approvers")] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster to run on, HOST:PORT or auto; RAY_ADDRESS, or one of its own, if left out"
        ),
    ] = None,
) -> None:
    """Run one governed sweep; or the recursive loop, where the file has a section `recursion`.

    Exit code: 0 where it ended by itself, 1 where it failed or was stopped, 2 where it can't be done as it is
    asked for, 3 where the loop waits for people to approve, or is held, and `--resume` goes on; 130 after
    Ctrl-C.
    """
    if address is not None:
        have_joined(address)
    find_own_classes(config.parent if config else None)
    _check_places(storage, artifacts)
    parsed = _read(config, example, resume, Path(storage or RUNS), artifacts)
    given = {"trials": trials, "seed": seed, "concurrent": concurrent, "seconds": seconds, "storage": storage}
    given["artifacts"] = artifacts
    parsed = parsed.model_copy(update={name: value for name, value in given.items() if value is not None})
    console = Console()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each study and trial; so do we
    if parsed.recursion:
        asked = loop_command.Asked(approve=approve, policy=policy, key=key, generations=generations)
        beside = {BESIDE: str(config.parent.resolve())} if config else {}
        raise typer.Exit(loop_command.run(parsed, asked, console, resume=resume, about=beside))
    sweep = sweep_of(parsed)
    if config:
        sweep.about = {**sweep.about, BESIDE: str(config.parent.resolve())}
    plan = sweep.plan(resume=resume)
    console.print(
        f"Run {plan.name}, ledger {without_password(plan.ledger_url)}", highlight=False, soft_wrap=True
    )
    with watching(console) as watch:
        result = run_sweep(plan, watch)
    console.print(summary(result))
    raise typer.Exit(_exit_code(result))


def _check_places(storage: str | None, artifacts: str | None) -> None:
    """Before anything is written or read there."""
    for problem in problems_of_places(storage or RUNS, artifacts, None):
        raise SweepError(problem)


def _read(
    config: Path | None, example: str | None, resume: str | None, storage: Path, artifacts: str | None
) -> SweepConfig:
    given = [value for value in (config, example, resume) if value is not None]
    if len(given) > 1:
        raise SweepError("run: expected one of a file, --example and --resume")
    if resume is not None:
        if artifacts:
            bring_back(ArtifactStore(uri=artifacts), storage, Path(resume).name)
        file = LOOP_FILE if is_run(storage, resume, LOOP_FILE) else RUN_FILE
        folder = run_folder(storage, resume, file)
        find_own_classes(read_about(folder, file).get(BESIDE))
        return config_of_run(folder, file)
    return load_config(config) if config else load_example(example or "built_in")


def find_own_classes(beside: str | Path | None) -> None:
    """Let `module:Class` be found from here and beside the sweep's file, in workers too."""
    for folder in (Path.cwd(), *([Path(beside).resolve()] if beside else [])):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def _exit_code(result: Result) -> int:
    if result.ended.startswith("interrupted"):
        return INTERRUPTED
    return FAILURE if result.ended or result.best is None else 0


@app.command()
def replay(
    trial: Annotated[str, typer.Argument(help="RUN/NUMBER, or a NUMBER of the latest run")],
    storage: Annotated[str, typer.Option(help="folder of all runs")] = RUNS,
) -> None:
    """Train a trial of a run again from its record, and compare the score."""
    stored = find_trial(Path(storage), trial)
    find_own_classes(stored.about.get(BESIDE))
    sweep = sweep_of(config_of_run(stored.folder))
    found = replay_trial(stored, sweep.job(), sweep.checked_limits(), threads=sweep.cpus)
    console = Console()
    console.print(found.text(), highlight=False, soft_wrap=True)
    raise typer.Exit(0 if found.same else FAILURE)


@app.command()
def config(
    example: Annotated[str, typer.Option(help=f"one of {', '.join(examples())}")] = "built_in",
) -> None:
    """Print an example's file, to start one's own from."""
    sys.stdout.write(example_file(example).read_text())


@app.command()
def drill(
    ledger: oversight.Url = None,
    storage: oversight.Storage = Path(RUNS),
    target: Annotated[float, typer.Option(min=0.1, help="seconds in which every canary must be dead")] = 2.0,
    by: oversight.Who = None,
) -> None:
    """Start canaries on every node, throw the kill switch on them alone, print how long each lived."""
    url = from_anywhere(ledger or f"sqlite:///{storage / LEDGER_FILE}")
    with quiet_tune(), local_ray():
        governor = connect(url) if ledger else connect_to_any(url)
        canaries = run_drill(governor, by or oversight.this_user(), target_ms=round(target * 1000))
    for canary in canaries:
        lived = "NOT DEAD" if canary.latency_ms is None else f"{canary.latency_ms:,} ms"
        typer.echo(f"{printable(canary.node):16} {canary.kind:10} {lived}")
    failure = missed(canaries, round(target * 1000))
    if failure:
        typer.echo(
            f"The drill failed: {printable(failure)}. Nothing begins on this ledger until a drill passes"
        )
        raise typer.Exit(FAILURE)
    typer.echo(f"Every canary was dead within {target:g} s; the drill is in the audit")
