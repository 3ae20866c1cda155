"""The command line: parse, wire, print, exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import optuna
import typer
from rich.console import Console

from rsi_ray.config import built_in_config, load_config
from rsi_ray.replay import replay as replay_trial
from rsi_ray.result import Result
from rsi_ray.runs import RunError, new_run
from rsi_ray.sweep import SweepError, run_sweep
from rsi_ray.view import summary, watching
from safety import DocumentError, SafetyError
from safety.schema import without_password

USAGE, FAILURE, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Governed architecture search on Ray.",
)


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="YAML file; the built-in job if left out")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="candidates that are trained")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="of sampler and candidates")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="trials at a time")] = None,
    storage: Annotated[str | None, typer.Option(help="folder of all runs")] = None,
) -> None:
    """Run one governed sweep."""
    given = {"trials": trials, "seed": seed, "concurrent": concurrent, "storage": storage}
    parsed = load_config(config)
    parsed = parsed.model_copy(update={name: value for name, value in given.items() if value is not None})
    console = Console()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each study and trial; so do we
    sweep = new_run(parsed)
    console.print(
        f"Run {sweep.name}, ledger {without_password(sweep.ledger_url)}", highlight=False, soft_wrap=True
    )
    with watching(console) as watch:
        result = run_sweep(sweep, watch)
    console.print(summary(result))
    raise typer.Exit(_exit_code(result))


def _exit_code(result: Result) -> int:
    if result.ended.startswith("interrupted"):
        return INTERRUPTED
    return FAILURE if result.ended or result.best is None else 0


@app.command()
def replay(
    trial: Annotated[str, typer.Argument(help="RUN/NUMBER, or a NUMBER of the latest run")],
    storage: Annotated[str, typer.Option(help="folder of all runs")] = "rsi_results",
) -> None:
    """Train a trial of a run again from its record, and compare the score."""
    found = replay_trial(Path(storage), trial)
    console = Console()
    console.print(found.text(), highlight=False, soft_wrap=True)
    raise typer.Exit(0 if found.same else FAILURE)


@app.command()
def config() -> None:
    """Print the built-in job's file, to start one's own from."""
    sys.stdout.write(built_in_config().read_text())


def main() -> None:
    """Entry point: one line for what went wrong, 2 for usage and 1 for failure."""
    try:
        app()
    except (DocumentError, SweepError, RunError) as error:
        print(f"rsi-ray: {error}", file=sys.stderr)
        sys.exit(USAGE)
    except (SafetyError, OSError) as error:
        print(f"rsi-ray: {error}", file=sys.stderr)
        sys.exit(FAILURE)
    except KeyboardInterrupt:
        print("rsi-ray: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
