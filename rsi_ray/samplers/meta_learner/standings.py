"""Scores of trials as standard normal quantiles of their ranks, those that were stopped early among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from scipy.special import ndtri

from rsi_ray.samplers.history import best_first

Array = npt.NDArray[np.float64]


def standings(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> Array:
    """Quantiles of complete trials, the best highest; equal scores are equal.

    With several objectives a trial's rank is that of the number of those that dominate it.
    """
    if len(directions) > 1:
        place = {trial.number: index for index, trial in enumerate(best_first(trials, directions))}
        worse = np.array([float(place[trial.number]) for trial in trials])
    else:
        sign = -1.0 if directions[0] == StudyDirection.MAXIMIZE else 1.0
        worse = sign * np.array([trial.values[0] for trial in trials])
    return quantiles(-worse)


def quantiles(scores: Array) -> Array:
    """Standard normal quantiles of the ranks of some scores."""
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - counts / 2
    return np.asarray(ndtri(ranks[which] / len(scores)), dtype=np.float64)


def standings_of_stopped(
    stopped: Sequence[FrozenTrial], complete: Sequence[FrozenTrial], direction: StudyDirection
) -> Array:
    """Quantiles of trials that were stopped, each among the complete ones that told a score at its last step.

    Where none did, it is taken as worse than three of four.
    """
    sign = 1.0 if direction == StudyDirection.MAXIMIZE else -1.0
    share = np.full(len(stopped), 0.25)
    by_step: dict[int, dict[int, float]] = {}
    for index, trial in enumerate(stopped):
        step = trial.last_step
        if step is not None and not np.isnan(trial.intermediate_values[step]):
            by_step.setdefault(step, {})[index] = sign * trial.intermediate_values[step]
    told = [trial.intermediate_values for trial in complete] if by_step else []
    for step, own in by_step.items():
        others = np.sort([sign * one[step] for one in told if step in one])
        if len(others):
            share[list(own)] = (np.searchsorted(others, list(own.values())) + 0.5) / (len(others) + 1)
    return np.asarray(ndtri(share))
