"""What people see in the terminal while a sweep runs: a live table of candidates, and budgets."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rsi_ray.observer import Snapshot, Watch
from rsi_ray.printable import printable
from rsi_ray.records import Verdict, record_of
from rsi_ray.spec_text import spec_text
from safety import Budget, Status

COLOURS = {
    Verdict.MEASURED: "green",
    Verdict.STOPPED: "dim",
    Verdict.REFUSED: "yellow",
    Verdict.FAILED: "red",
    Verdict.CUT: "magenta",
}
NAMES = {
    "train_gflop": "training FLOPs",
    "trials": "trials",
    "concurrent_params": "parameters at a time",
    "gpu_ms": "GPU time",
    "wall_ms": "trial time",
}
PREFIXES = ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k"))
# answered from a record, interrupted, told, or recorded again as what a scheduler made of it
HIDDEN = (Verdict.KNOWN, Verdict.CUT, Verdict.EARLIER, Verdict.MUTATED)
ROWS_BESIDE_TABLE = 16

Row = dict[str, Any]


@contextmanager
def watching(console: Console, *, dashboard: bool = True) -> Iterator[Watch]:
    """A watcher for `run_sweep`: a table updated in place, or lines where the output is no terminal.

    Args:
        console: that is written on.
        dashboard: whether the lines begin with where the Ray dashboard is.
    """
    started = time.monotonic()
    if not console.is_terminal:
        yield _printer(console, set() if dashboard else {-1})
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda snapshot: live.update(screen(snapshot, time.monotonic() - started, console.height))


def _printer(console: Console, told: set[int]) -> Watch:

    def watch(snapshot: Snapshot) -> None:
        if -1 not in told:
            told.add(-1)
            console.print(dashboard_text(snapshot.dashboard), highlight=False, soft_wrap=True)
        for row in rows_of(snapshot):
            if row["number"] not in told and row["verdict"] != "training":
                told.add(row["number"])
                cells = "  ".join(cell.plain for cell in _cells(row))
                console.print(cells, markup=False, highlight=False, soft_wrap=True)

    return watch


def rows_of(snapshot: Snapshot) -> list[Row]:
    """One row per candidate that was proposed; those answered from a record are left out."""
    running = {snapshot.live.get(trial_id, -1): told for trial_id, told in snapshot.running.items()}
    rows = []
    for trial in snapshot.study.get_trials(deepcopy=False):
        row = record_of(trial)
        if trial.number in snapshot.live.values():
            told = running.get(trial.number, {})
            row |= {
                "verdict": "training",
                "score": told.get("score"),
                "reports": told.get("training_iteration", 0),
                "claim": snapshot.price(trial.params).as_dict(),
            }
        if row["verdict"] not in HIDDEN:
            rows.append(row)
    return rows


def screen(snapshot: Snapshot, seconds: float, height: int) -> RenderableType:
    """The whole screen of a running sweep, as high as the terminal allows."""
    rows = rows_of(snapshot)
    done = sum(row["verdict"] in (Verdict.MEASURED, Verdict.STOPPED, Verdict.FAILED) for row in rows)
    refused = sum(row["verdict"] == Verdict.REFUSED for row in rows)
    head = Text(
        f"{done} of {snapshot.trials} candidates, {refused} refused, {seconds:.0f} s", style="bold", end="\n"
    )
    bar = ProgressBar(total=max(1, snapshot.trials), completed=done, width=60)
    return Group(
        head,
        Padding(bar, 0),
        table_of(_fitting(rows, max(4, height - ROWS_BESIDE_TABLE))),
        budgets_of(snapshot.status),
        *capability_of(snapshot.status),
        Text(dashboard_text(snapshot.dashboard)),
    )


def _fitting(rows: list[Row], count: int) -> list[Row]:
    """The rows most worth seeing: in training, then the best, then the newest."""

    def worth(row: Row) -> tuple[bool, bool, int]:
        best = row["verdict"] == Verdict.MEASURED and row["number"] in top
        return row["verdict"] == "training", best, row["number"]

    measured = [row for row in rows if row["verdict"] == Verdict.MEASURED]
    top = {row["number"] for row in sorted(measured, key=lambda row: row["score"])[-max(1, count // 3) :]}
    kept = sorted(rows, key=worth)[-count:]
    return sorted(kept, key=lambda row: row["number"])


def table_of(rows: Iterable[Row]) -> Table:
    """Candidates as a table: trial, spec, params, FLOPs, score, verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("spec", ratio=3, overflow="ellipsis", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("FLOPs", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("verdict", ratio=2, overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[Text]:
    claim = row.get("claim") or {}
    score = row.get("score")
    style = COLOURS.get(row["verdict"], "")
    return [
        Text(f"#{row['number']}"),
        Text(spec_text(row.get("config") or {})),
        Text(amount(claim["params"]) if claim else ""),
        Text(amount(claim["forward_flops"]) if claim else ""),
        Text("" if score is None else f"{score:.4f}"),
        Text(verdict_text(row), style=style),
    ]


def verdict_text(row: Mapping[str, Any]) -> str:
    """A verdict with what it needs to be understood."""
    verdict = str(row["verdict"])
    if row.get("baseline"):
        verdict += " (baseline)"
    if row["verdict"] in ("training", Verdict.STOPPED):
        return f"{verdict}, report {row.get('reports') or 0}"
    if row["verdict"] == Verdict.REFUSED:
        return printable(f"{verdict} by {row.get('rule', '')}: {row.get('reason', '')}")
    if row["verdict"] == Verdict.FAILED:
        return printable(f"{verdict}: {row.get('reason', '')}")
    return verdict


def amount(value: float) -> str:
    """A number with three digits and a unit prefix."""
    if 0 < value < 100 and value != int(value):
        return f"{value:.3g}"
    for power, prefix in PREFIXES:
        # from where three digits round up to the next prefix
        if value >= 0.9995 * 10**power:
            return f"{value / 10**power:.3g}{prefix}"
    return f"{value:.0f}"


def budgets_of(status: Status) -> Table:
    """The limited budgets with their share used."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("budget", "used", "of", "share", ""):
        table.add_column(name, justify="left" if name in ("budget", "") else "right")
    for budget in status.budgets:
        if budget.limited:
            used, cap = in_units(budget, budget.spent + budget.held), in_units(budget, budget.target)
            bar = ProgressBar(total=1.0, completed=budget.share, width=20)
            scope = budget.scope.split(":")[0]
            table.add_row(f"{scope} {NAMES[budget.resource]}", used, cap, f"{budget.share:.1%}", bar)
    return table


def capability_of(status: Status) -> list[Text]:
    """One line for the domains that have come near their capability ceilings; none where none has."""
    near = sorted(status.near, key=lambda one: one.share, reverse=True)
    told = ", ".join(f"{one.domain} {one.score:.3g} of {one.ceiling:g} ({one.share:.0%})" for one in near)
    return [Text(f"capability: {told}", style="yellow")] if told else []


def in_units(budget: Budget, value: int) -> str:
    """An amount of a budget as people say it."""
    if budget.resource.endswith("_ms"):
        return f"{value / 1000:.0f} s"
    return amount(value * 10**9 if budget.resource == "train_gflop" else value)


def dashboard_text(address: str, when: str = "") -> str:
    """Where the Ray dashboard is, and how to get in."""
    return f"Ray dashboard: http://{address}  ({when}`ray get-auth-token` prints the token it asks for)"
