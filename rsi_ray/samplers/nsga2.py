"""NSGA-II, whose generations hold the refused specs too: any feasible one dominates them."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.trial import FrozenTrial

from rsi_ray.samplers.guarded import Guarded
from rsi_ray.samplers.history import History
from rsi_ray.samplers.refused import as_complete

POPULATION = 20


def nsga2(seed: int) -> BaseSampler:
    """NSGA-II without repeats."""
    return Guarded(NSGAIISampler(population_size=POPULATION, seed=seed), seed=seed, shown=latest_generations)


def latest_generations(history: History, study: optuna.Study) -> list[FrozenTrial]:
    """The best trials, and more of the latest than two generations; refused ones as complete."""
    latest = {trial.number: trial for trial in (*history.best, *history.complete[-4 * POPULATION :])}
    # where two are refused, the excess alone decides
    values = [0.0] * len(study.directions)
    refused = [as_complete(trial, values) for trial in history.refused[-4 * POPULATION :]]
    return [*latest.values(), *refused]
