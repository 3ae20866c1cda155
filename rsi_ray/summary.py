"""What people see in the terminal at the end: the best, the front, what was refused, where all of it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rsi_ray.objectives import MINIMIZED, SCORE
from rsi_ray.printable import printable
from rsi_ray.records import Verdict, below
from rsi_ray.result import Result
from rsi_ray.spec_text import spec_text
from rsi_ray.view import Row, amount, budgets_of, capability_of, dashboard_text, table_of
from safety import Deny, Hold


def summary(result: Result) -> Group:
    """The words at the end: the best, what was refused and why, where everything lies."""
    rows = [{str(name): cell for name, cell in row.items()} for row in result.table.to_dict("records")]
    measured = result.table[result.table["verdict"] == Verdict.MEASURED].nlargest(5, "score")
    parts: list[RenderableType] = []
    if result.best:
        parts += [
            Text("Best candidates trained to the end", style="bold"),
            table_of(_records(measured, rows)),
        ]
        parts.append(_best_text(result))
    if len(result.objectives) > 1 and len(result.front):
        parts.append(front_of(result))
    parts.append(_verdicts_text(result.table))
    parts += [budgets_of(result.status), *capability_of(result.status)]
    if result.ended:
        parts.append(Text(printable(f"The sweep ended early: {result.ended}"), style="red"))
    if result.used_up:
        parts.append(Text(printable(f"Nothing more to train: {result.used_up}"), style="yellow"))
    folder = _from_here(result.folder)
    parts.append(
        Text(
            f"Results: {folder / 'results.parquet'}\n"
            f"Study:   {folder / 'study.log'}  (optuna-dashboard opens it)\n"
            f"Weights: {folder / 'weights'}\n" + dashboard_text(result.dashboard, "while a run lasts; ")
        )
    )
    return Group(*parts)


def front_of(result: Result) -> Group:
    """The Pareto front as a table: one column for each objective."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("spec", ratio=1, overflow="ellipsis", no_wrap=True)
    for name in result.objectives:
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.front.to_dict("records"):
        known = {str(name): cell for name, cell in row.items()}
        values = [known[name if name == SCORE else MINIMIZED[name]] for name in result.objectives[1:]]
        cells = [f"#{known['number']}", spec_text(_config_of(known)), f"{known['score']:.4f}"]
        table.add_row(*cells, *(amount(value) for value in values))
    title = Text(f"Pareto front of {' and '.join(result.objectives)}", style="bold")
    return Group(title, table)


def _from_here(folder: Path) -> Path:
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _records(chosen: pd.DataFrame, rows: list[Row]) -> list[Row]:
    numbers = list(chosen["number"])
    by_number = {row["number"]: row for row in rows}
    return [_as_record(by_number[number]) for number in numbers]


def _config_of(row: Row) -> dict[str, Any]:
    return {name: value for name, value in below(row, "config/").items() if not pd.isna(value)}


def _as_record(row: Row) -> Row:
    return {
        **row,
        "config": _config_of(row),
        "claim": {"params": int(row["params"]), "forward_flops": int(row["forward_flops"])},
    }


def _best_text(result: Result) -> Text:
    best, baseline = result.best or {}, result.baseline
    domains = ", ".join(f"{name} {score:.3f}" for name, score in best["domains"].items())
    text = f"Best: #{best['number']} with a score of {best['score']:.4f} ({domains})"
    if baseline:
        gain = best["score"] / baseline["score"] - 1 if baseline["score"] else float("nan")
        text += f"\nBaseline: #{baseline['number']} with {baseline['score']:.4f}; the best is {gain:+.1%}"
    if isinstance(result.improvement, Deny):
        text += f"\nRefused, and its lineage shut down: {printable(result.improvement.reason)}"
    elif isinstance(result.improvement, Hold):
        text += f"\nHeld for a human before it may replace anything: {printable(result.improvement.reason)}"
    return Text(text)


def _verdicts_text(table: pd.DataFrame) -> Text:
    lines = []
    for _, group in table.groupby("verdict"):
        verdict = group["verdict"].iloc[0]
        if verdict in (Verdict.REFUSED, Verdict.FAILED):
            for rule, same in group.groupby("rule"):
                example = same.iloc[0]
                told = f"{len(same)} {verdict} by {rule}; #{example['number']}: {example['reason']}"
                lines.append(printable(told))
        else:
            lines.append(f"{len(group)} {verdict}")
    return Text("\n".join(lines))
