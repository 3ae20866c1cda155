"""Changes the GPUs of a trial while it runs, within limits; a program, since it needs a Ray with GPUs.

`python -m tests.integration.resource_change FOLDER GPU_SECONDS...` prints how far each trial got, as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.schedulers import FIFOScheduler, ResourceChangingScheduler

import safety
from safety.governor_process import NAME, NAMESPACE
from tests.integration.trainables import Climber

SECONDS = 100


def two_gpus_from_the_third_report(
    controller: Any, trial: Any, result: dict[str, Any], scheduler: Any
) -> PlacementGroupFactory | None:
    del controller, trial, scheduler
    return PlacementGroupFactory([{"CPU": 1, "GPU": 2}]) if result["training_iteration"] >= 3 else None


def main(folder: str, *gpu_seconds: str) -> None:
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    variables = {"PYTHONPATH": str(Path(__file__).parents[2])}
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": variables},
    )
    reports = {}
    for seconds in gpu_seconds:
        own = Path(folder, seconds)
        own.mkdir()
        reports[seconds] = reports_within(own, int(seconds))
        ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))
    sys.stdout.write(json.dumps(reports))


def reports_within(folder: Path, gpu_seconds: int) -> int:
    """How far a trial gets whose ledger has so much room."""
    scheduler = ResourceChangingScheduler(FIFOScheduler(), two_gpus_from_the_third_report)
    tuner = tune.Tuner(
        tune.with_resources(Climber, {"cpu": 1, "gpu": 1}),
        param_space={"slope": 0.1, "folder": str(folder)},
        tune_config=tune.TuneConfig(metric="score", mode="max", scheduler=scheduler),
        run_config=tune.RunConfig(name="run", storage_path=str(folder), verbose=0),
    )
    limits = {
        "bounds": {"max_params": 10, "max_flops": 10, "max_memory": 10},
        "sweep": {"gpu_seconds": gpu_seconds},
    }
    (result,) = safety.govern(tuner, limits, trial_seconds=SECONDS).fit()
    return int(result.metrics["training_iteration"])


if __name__ == "__main__":
    main(*sys.argv[1:])
