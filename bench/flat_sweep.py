"""One flat sweep of Ray Tune with OptunaSearch and ASHA, as people run it without a loop."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import optuna
import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from bench.flops_curve import Curve
from rsi_ray.plan import judge_config
from rsi_ray.sweep import quiet_tune
from rsi_ray.training_job import TrainingJob
from rsi_ray.training_run import TrainingRun
from safety import Allow, Limits

CONCURRENT = 2
# of a search that its budget ends
ENDLESS = 100_000


class Trained(tune.Trainable):
    """Trains one candidate after the other, an epoch a step; one over a ceiling ends with no score."""

    def setup(self, config: dict[str, Any], *, job: TrainingJob, limits: Limits) -> None:  # type: ignore[override]
        """Take what all candidates share."""
        torch.set_num_threads(1)
        self._job, self._limits = job, limits
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make room for the next candidate."""
        self._config = new_config
        self._run: TrainingRun | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch."""
        if not isinstance(judge_config(self._limits, self._job, self._config), Allow):
            return {"score": 0.0, "flops": 0, "seconds": 0.0, "done": True}
        began, claim = time.perf_counter(), self._job.price(self._config)
        self._run = self._run or self._job.begin(self._config)
        score = self._run.next_report()["score"]
        flops = claim.train_flops // claim.reports
        return {"score": score, "flops": flops, "seconds": time.perf_counter() - began}


class Budget(tune.Stopper):
    """Writes every report down, and ends the sweep as its FLOPs are spent."""

    def __init__(self, budget: int) -> None:
        self.curve = Curve()
        self._budget = budget

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Take a report; no trial is stopped by itself."""
        del trial_id
        path = result["flops"] * result["training_iteration"]
        self.curve.add(result["score"], result["flops"], path, result["seconds"])
        return False

    def stop_all(self) -> bool:
        """Whether the budget is spent."""
        return self.curve.searched >= self._budget


def flat_sweep(job: TrainingJob, limits: Limits, budget: int, seed: int) -> Curve:
    """Sample, train and stop candidates until so many FLOPs are spent."""
    budgeted, reports = Budget(budget), job.training.epochs
    with tempfile.TemporaryDirectory() as folder, quiet_tune():
        ray.init(address="local", num_cpus=CONCURRENT, include_dashboard=False, log_to_driver=False)
        try:
            tune.Tuner(
                tune.with_parameters(Trained, job=job, limits=limits),
                tune_config=tune.TuneConfig(
                    metric="score",
                    mode="max",
                    num_samples=ENDLESS,
                    max_concurrent_trials=CONCURRENT,
                    reuse_actors=True,
                    search_alg=OptunaSearch(
                        space=partial(_suggest, job),
                        metric="score",
                        mode="max",
                        sampler=optuna.samplers.TPESampler(seed=seed),
                    ),
                    scheduler=ASHAScheduler(max_t=reports, grace_period=1, reduction_factor=3),
                ),
                run_config=tune.RunConfig(storage_path=folder, name="flat", stop=budgeted, verbose=0),
            ).fit()
        finally:
            ray.shutdown()
    return budgeted.curve


def _suggest(job: TrainingJob, trial: optuna.Trial) -> None:
    job.suggest(trial)
