"""What `safety.govern` adds to a Tune run that isn't ours: no-op function trials, alone and governed.

`python -m bench.overhead_govern [TRIALS]`; each trial makes three reports. The last line is JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time

import ray
from ray import tune

import safety
from safety.actor import NAME, NAMESPACE

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


def ms_per_trial(trials: int, *, governed: bool, reuse: bool) -> float:
    """Milliseconds that one trial takes, of a run of so many."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tuner = tune.Tuner(
            no_op,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(
                metric="score", mode="max", num_samples=trials, max_concurrent_trials=2, reuse_actors=reuse
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
    return round(taken / trials * 1000, 1)


def main(trials: int) -> None:
    """Measure each way once and print."""
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR)
    ms_per_trial(2, governed=True, reuse=True)  # starts what starts once
    found = {
        f"{'governed' if governed else 'alone'}, {'reused' if reuse else 'fresh'} actors": ms_per_trial(
            trials if reuse else max(1, trials // 5), governed=governed, reuse=reuse
        )
        for reuse in (True, False)
        for governed in (False, True)
    }
    print(json.dumps({"trials": trials, "ms_per_trial": found}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
