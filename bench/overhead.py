"""What a trial costs besides its training: Ray Tune by default, with reused actors, ours, a governed Tuner.

`python -m bench.overhead [--full]`; each trial makes three reports and trains nothing. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search.optuna import OptunaSearch
from torch import nn

from bench.foreign_trainable import ms_per_trial
from rsi_ray.plan import Plan
from rsi_ray.samplers import SAMPLERS
from rsi_ray.sweep import run_sweep
from safety import Claim, Measured, limits_from_dict
from safety.actor import connect
from safety.governor_process import NAME, NAMESPACE
from search_spaces.cost import Cost
from search_spaces.measure import measure_space
from search_spaces.space import Sample, Suggest

REPORTS = 3
LIMITS = {
    "bounds": {"max_params": 10e9, "max_flops": 1e15, "max_memory": 100e9, "max_performance": {"a": 0.9}},
    "cluster": {"train_flops": 1e18},
    "sweep": {"trials": 1_000_000, "concurrent_params": 1_000_000},
}


class Line(nn.Module):
    """A linear map of one value."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Map the input "x"."""
        result: torch.Tensor = self.linear(inputs["x"])
        return result


@dataclass(frozen=True, kw_only=True)
class LineSpace:
    """One number to choose, and a model of two parameters."""

    def suggest(self, trial: Suggest) -> float:
        """Choose the number."""
        return trial.suggest_float("x", 0.0, 1.0)

    def cost(self, _spec: float) -> Cost:
        """Price of a linear map of one value."""
        return Cost(params=2, forward_flops=2, train_step_flops=6, memory_bytes=32)

    def build(self, _spec: float) -> nn.Module:
        """A linear map of one value."""
        return Line()

    def samples(self) -> Mapping[str, Sample]:
        """One value."""
        return {"x": Sample(shape=(1,), dtype="float32")}


@dataclass
class NoOpRun:
    """Reports the number that was chosen."""

    x: float

    def next_report(self) -> Mapping[str, object]:
        """A report without any training."""
        return {"score": self.x, "domains": {"a": self.x * 0.5}}

    def save(self, path: Path) -> None:
        """Nothing is worth saving."""

    def restore(self, path: Path) -> None:
        """Nothing was saved."""

    def export(self, path: Path) -> None:
        """No weights, an empty file."""
        path.touch()


@dataclass(frozen=True, kw_only=True)
class NoOpJob:
    """Every gate, and no training."""

    space: LineSpace

    def price(self, config: Mapping[str, Any]) -> Claim:
        """Claim of the linear map."""
        cost = self.space.cost(config["x"])
        return Claim(
            params=cost.params,
            forward_flops=cost.forward_flops,
            memory_bytes=cost.memory_bytes,
            train_flops=cost.train_step_flops * REPORTS,
            wall_ms=60_000,
            reports=REPORTS,
        )

    def measure(self, config: Mapping[str, Any]) -> Measured:
        """Count the real module on the meta device."""
        found = measure_space(self.space, config["x"])
        return Measured(params=found.params, forward_flops=found.forward_flops)

    def suggest(self, trial: Suggest) -> float:
        """Choose the number."""
        return self.space.suggest(trial)

    def digest(self) -> str:
        """There are no data."""
        return ""

    def begin(self, config: Mapping[str, Any]) -> NoOpRun:
        """Build nothing."""
        return NoOpRun(config["x"])


def quickstart(config: dict[str, Any]) -> None:
    """A function trainable, as Ray Tune's quickstart writes it."""
    torch.manual_seed(0)
    for _ in range(REPORTS):
        tune.report({"score": config["x"]})


class Reusable(tune.Trainable):
    """A class trainable whose actor is reused."""

    def setup(self, config: dict[str, Any]) -> None:
        """Import torch, as every candidate does."""
        torch.manual_seed(0)
        self.x = config["x"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self.x = new_config["x"]
        return True

    def step(self) -> dict[str, Any]:
        """A report without any training."""
        return {"score": self.x, "done": self.training_iteration + 1 >= REPORTS}


def default_ms(trials: int, folder: str) -> float:
    """Milliseconds per trial of Ray Tune by default."""
    tuner = tune.Tuner(
        quickstart,
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(metric="score", mode="max", num_samples=trials),
        run_config=tune.RunConfig(storage_path=folder, name="default", verbose=0),
    )
    return _timed(tuner.fit, trials)


def reuse_ms(
    trials: int, folder: str, *, concurrent: int = 2, sampler: optuna.samplers.BaseSampler | None = None
) -> float:
    """Milliseconds per trial of Ray Tune with OptunaSearch and reused actors of a class trainable."""
    tuner = tune.Tuner(
        Reusable,
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=trials,
            search_alg=OptunaSearch(sampler=sampler),
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=folder,
            name="reuse",
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    return _timed(tuner.fit, trials)


def governed_ms(trials: int, folder: str, *, concurrent: int = 2, sampler: str = "tpe") -> float:
    """Milliseconds per trial of ours: three gates, ledger on disk, study in a file, records."""
    space = LineSpace()
    plan = Plan(
        name="governed",
        folder=Path(folder) / "governed",
        ledger_url=f"sqlite:///{folder}/ledger.db",
        limits=limits_from_dict(LIMITS),
        space=space,
        job=NoOpJob(space=space),
        sampler=SAMPLERS[sampler](0),
        reports=REPORTS,
        trials=trials,
        scheduler=FIFOScheduler,
        concurrent=concurrent,
    )
    # the governor is the cluster's, and outlives its sweeps; so it is up already
    connect(plan.ledger_url)
    try:
        return _timed(lambda: run_sweep(plan), trials)
    finally:
        ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))


def _timed(run: Any, trials: int) -> float:
    started = time.monotonic()
    run()
    return (time.monotonic() - started) / trials * 1000


def main() -> None:
    """Measure all of them on one Ray, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="three turns of 500 trials each")
    full = parser.parse_args().full
    turns, trials, few = (3, 500, 20) if full else (1, 200, 8)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR)
    names = ("default_ms", "reuse_ms", "governed_ms", "foreign_ms", "foreign_governed_ms")
    rows: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            rows["reuse_ms"].append(reuse_ms(trials, folder))
            rows["governed_ms"].append(governed_ms(trials, folder))
            rows["default_ms"].append(default_ms(few, folder))
        rows["foreign_ms"].append(ms_per_trial(trials // 2, governed=False))
        rows["foreign_governed_ms"].append(ms_per_trial(trials // 2, governed=True))
    medians = {name: round(statistics.median(times), 1) for name, times in rows.items()}
    for name, value in medians.items():
        print(f"{name:20} {value:8.1f} ms per trial")
    ratios = {
        "faster_than_default": round(medians["default_ms"] / medians["governed_ms"], 1),
        "of_reuse": round(medians["governed_ms"] / medians["reuse_ms"], 2),
        "govern_of_foreign": round(medians["foreign_governed_ms"] / medians["foreign_ms"], 2),
    }
    print(json.dumps({**medians, **ratios, "trials": trials, "turns": turns}))


if __name__ == "__main__":
    main()
