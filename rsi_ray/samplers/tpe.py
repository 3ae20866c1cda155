"""Tree-structured Parzen estimator, Optuna's default, on the best and the latest trials."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from rsi_ray.samplers.guarded import Guarded
from rsi_ray.samplers.history import History

LATEST = 100


def tpe(seed: int) -> BaseSampler:
    """TPE, at any length of the study at the cost of a short one."""
    return Guarded(TPESampler(seed=seed), seed=seed, shown=best_and_latest)


def best_and_latest(history: History, _study: optuna.Study) -> list[FrozenTrial]:
    """The best trials, and the latest of each kind."""
    latest = [*history.complete[-LATEST:], *history.pruned[-LATEST:], *history.refused[-LATEST:]]
    return list({trial.number: trial for trial in (*history.best, *latest)}.values())
