"""A Tune run that isn't ours, alone and under `safety.govern`: no-op function trials of three reports."""

from __future__ import annotations

import tempfile
import time

import ray
from ray import tune

import safety
from safety.governor_process import NAME, NAMESPACE

REPORTS = 3
LIMITS = {
    "bounds": {"max_params": 10e9, "max_flops": 1e15, "max_memory": 100e9},
    "sweep": {"train_flops": 1e18, "trials": 1_000_000},
}


def no_op(config: dict[str, float]) -> None:
    """Report the number that was chosen."""
    for _ in range(REPORTS):
        tune.report({"score": config["x"]})


def cost(_config: object) -> dict[str, int]:
    """A price of nothing much."""
    return {"params": 2, "train_flops": 6 * REPORTS}


def ms_per_trial(trials: int, *, governed: bool) -> float:
    """Milliseconds that one trial takes, of a run of so many on reused actors."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tuner = tune.Tuner(
            no_op,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(
                metric="score", mode="max", num_samples=trials, max_concurrent_trials=2, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        if governed:
            tuner = safety.govern(tuner, LIMITS, cost, trial_seconds=60, reports=REPORTS)
        began = time.perf_counter()
        tuner.fit()
        taken = time.perf_counter() - began
        if governed:
            ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))
    return taken / trials * 1000
