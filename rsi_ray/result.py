"""What a sweep leaves: its table, the weights of its best, and the verdict on them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd

from rsi_ray.patience import while_away
from rsi_ray.records import best, frame
from safety import Allow, SafetyError, Status
from safety import Verdict as Judgement
from safety.actor import GovernorClient

if TYPE_CHECKING:
    from rsi_ray.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a sweep has found.

    Attributes:
        folder: where everything of it lies.
        table: all candidates; see `records.frame`.
        objectives: what was optimized, the score first.
        best, baseline: their records, where there are any.
        improvement: the verdict on the best against the baseline.
        status: state of the sweep and its budgets at the end.
        ended: why it ended before its number of trials; "" where it didn't.
        used_up: why nothing more could be trained; "" where more could.
        dashboard: address of the Ray dashboard while it ran.
    """

    folder: Path
    table: pd.DataFrame
    objectives: tuple[str, ...]
    best: dict[str, Any] | None
    baseline: dict[str, Any] | None
    improvement: Judgement
    status: Status
    ended: str
    used_up: str
    dashboard: str

    @property
    def front(self) -> pd.DataFrame:
        """The Pareto front: rows of `table` that no other one dominates, the best score first."""
        return self.table[self.table["pareto"]].sort_values("score", ascending=False, ignore_index=True)


def write_table(plan: Plan, study: optuna.Study) -> None:
    """Write results.parquet, whole or not at all."""
    partial, table = plan.folder / "results.parquet.partial", frame(study)

    def write() -> None:
        table.to_parquet(partial, index=False)
        partial.replace(plan.folder / "results.parquet")

    while_away(write, str(plan.folder))


def result_of(
    plan: Plan,
    study: optuna.Study,
    governor: GovernorClient,
    *,
    stopped: str,
    used_up: str,
    dashboard: str,
) -> Result:
    """Read the study once more, and have the best judged against the baseline.

    Args:
        plan: that was run.
        study: its candidates.
        governor: judges the improvement.
        stopped: why it ended early, "" where it didn't.
        used_up: why nothing more could be trained.
        dashboard: address of the Ray dashboard.
    """
    table = frame(study)
    found = best(study)
    baseline: Any = next(iter(table[table["baseline"]].to_dict("records")), None)
    improvement: Judgement = Allow()
    if found and baseline and found["number"] != baseline["number"]:
        with suppress(SafetyError):
            improvement = governor.judge_improvement(plan.on_ledger, baseline["score"], found["score"])
    status = governor.status(plan.on_ledger)
    held = status.state in ("frozen", "killed")
    ended = stopped or (f"{status.state}: {status.reason}" if held else "")
    return Result(
        folder=plan.folder,
        table=table,
        objectives=plan.objectives,
        best=found,
        baseline=baseline,
        improvement=improvement,
        status=status,
        ended=ended,
        used_up=used_up,
        dashboard=dashboard,
    )
