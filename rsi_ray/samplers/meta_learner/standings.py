"""Scores of trials as standard normal quantiles of their ranks, those that were stopped early among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from scipy.special import ndtri
from scipy.stats import rankdata

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
    return np.asarray(ndtri((rankdata(scores) - 0.5) / len(scores)), dtype=np.float64)


def standing_of_stopped(
    stopped: FrozenTrial, complete: Sequence[FrozenTrial], direction: StudyDirection
) -> float:
    """Quantile of a trial that was stopped, among the complete ones that told a score at its last step.

    Where none did, it is taken as worse than three of four.
    """
    step = stopped.last_step
    if step is None:
        return float(ndtri(0.25))
    sign = 1.0 if direction == StudyDirection.MAXIMIZE else -1.0
    own = sign * stopped.intermediate_values[step]
    others = [
        sign * trial.intermediate_values[step] for trial in complete if step in trial.intermediate_values
    ]
    if not others or np.isnan(own):
        return float(ndtri(0.25))
    beaten = sum(own > other for other in others)
    return float(ndtri((beaten + 0.5) / (len(others) + 1)))
