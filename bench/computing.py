"""A sweep whose every report is written down as it is begun: what was really computed, whoever was lost.

`python -m bench.computing settings.json address` runs it on the Ray of that address; the last line is JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from ray.tune.schedulers import FIFOScheduler
from torch import nn

from rsi_ray.plan import Plan
from rsi_ray.records import Verdict
from rsi_ray.sweep import run_sweep
from safety import Claim, Ledger, Measured, limits_from_dict
from safety.snapshot import take
from search_spaces.cost import Cost
from search_spaces.space import Sample, Suggest

NAME = "computing"
BEGUN = "begun.log"
GFLOP = 10**9
LEASE_SECONDS, GRACE_SECONDS = 3, 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one sweep is like.

    Attributes:
        folder: of the run and its marks.
        ledger: SQLAlchemy URL.
        trials: candidates that are trained.
        reports: of each.
        seconds: of one report.
        concurrent: trials at a time.
    """

    folder: str
    ledger: str
    trials: int
    reports: int
    seconds: float
    concurrent: int


@dataclass(frozen=True, kw_only=True)
class NumberSpace:
    """Candidates of one parameter, told apart by a number."""

    def suggest(self, trial: Suggest) -> int:
        """Choose a number."""
        return trial.suggest_int("number", 1, 10**9)

    def cost(self, _spec: int) -> Cost:
        """The same for all."""
        return Cost(params=1, forward_flops=2, train_step_flops=6, memory_bytes=10**6)

    def build(self, _spec: int) -> nn.Module:
        """One weight."""
        return nn.Linear(1, 1, bias=False)

    def samples(self) -> Mapping[str, Sample]:
        """One number."""
        return {"x": Sample(shape=(1,), dtype="float32")}


class Computing:
    """Writes each report down as it begins, and takes its time."""

    def __init__(self, settings: Settings, number: int) -> None:
        self._settings, self._number, self._made = settings, number, 0

    def next_report(self) -> Mapping[str, object]:
        """Compute one report."""
        self._made += 1
        line = f"{self._number} {self._made} {os.getpid()} {ray.util.get_node_ip_address()}\n"
        with (Path(self._settings.folder) / BEGUN).open("a") as file:  # one write, at the end of the file
            file.write(line)
        time.sleep(self._settings.seconds)
        return {"score": self._number / 10**9, "domains": {}}

    def save(self, path: Path) -> None:
        """How many reports it has made."""
        path.write_text(str(self._made))

    def restore(self, path: Path) -> None:
        """Go on after so many."""
        self._made = int(path.read_text())

    def export(self, path: Path) -> None:
        """There are no weights worth keeping."""
        path.touch()


@dataclass(frozen=True, kw_only=True)
class ComputingJob:
    """Claims one GFLOP per report."""

    settings: Settings
    space: NumberSpace = NumberSpace()

    def suggest(self, trial: Suggest) -> int:
        """Choose a candidate."""
        return self.space.suggest(trial)

    def price(self, _config: Mapping[str, Any]) -> Claim:
        """The same for all."""
        reports = self.settings.reports
        return Claim(
            params=1,
            forward_flops=2,
            memory_bytes=10**6,
            train_flops=reports * GFLOP,
            wall_ms=600_000,
            reports=reports,
        )

    def measure(self, _config: Mapping[str, Any]) -> Measured:
        """What it claims."""
        return Measured(params=1, forward_flops=2)

    def digest(self) -> str:
        """There are no data."""
        return "none"

    def begin(self, config: Mapping[str, Any]) -> Computing:
        """Begin a candidate."""
        return Computing(self.settings, config["number"])


def plan_of(settings: Settings) -> Plan:
    """The sweep, under limits that have room for each report three times."""
    room = 3 * settings.trials * settings.reports * GFLOP
    limits = {
        "bounds": {"max_params": 10, "max_flops": 10**6, "max_memory": 10**9},
        "sweep": {"trials": settings.trials, "train_flops": room},
        "lease_seconds": LEASE_SECONDS,
        "grace_seconds": GRACE_SECONDS,
    }
    job = ComputingJob(settings=settings)
    return Plan(
        name=NAME,
        folder=Path(settings.folder) / "run",
        ledger_url=settings.ledger,
        limits=limits_from_dict(limits),
        space=job.space,
        job=job,
        sampler=optuna.samplers.RandomSampler(seed=0),
        reports=settings.reports,
        trials=settings.trials,
        scheduler=FIFOScheduler,
        concurrent=settings.concurrent,
        checkpoint_seconds=0,
        max_failures=10,
    )


def run(settings: Settings) -> dict[str, Any]:
    """Run the sweep; its verdicts by number, and what it took."""
    torch.set_num_threads(1)
    began = time.monotonic()
    result = run_sweep(plan_of(settings))
    seconds = time.monotonic() - began
    table = result.table
    measured = table[(table["verdict"] == Verdict.MEASURED) & (table["reports"] == settings.reports)]
    return {
        "ended": result.ended,
        "seconds": round(seconds, 1),
        "verdicts": {str(verdict): int(count) for verdict, count in table["verdict"].value_counts().items()},
        "reasons": sorted(set(table["reason"].dropna())),
        "measured": sorted(int(number) for number in measured["config/number"]),
    }


def books_of(settings: Settings) -> dict[str, int]:
    """What the ledger says of the sweep: GFLOP spent and held, trials, and leases that were lost."""
    ledger = Ledger(settings.ledger)
    try:
        found = [budget for budget in ledger.budgets(NAME) if budget.scope != "cluster"]
        spent = {budget.resource: budget for budget in found}
        kinds = [entry.kind for _, entry, _ in ledger.audit()]
        with ledger.reading() as connection:
            used = take(connection).used
    finally:
        ledger.close()
    return {
        "spent": spent["train_gflop"].spent,
        "held": spent["train_gflop"].held,
        "by_leases": used["train_gflop"],
        "trials": spent["trials"].spent,
        "forfeited": kinds.count("forfeit"),
    }


def main() -> None:
    """Run what a file says."""
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text()))
    ray.init(address=sys.argv[2], log_to_driver=False)
    print(json.dumps(run(settings)))


if __name__ == "__main__":
    main()
