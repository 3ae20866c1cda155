"""A Bayesian linear model of the choices, by Thompson sampling, and another one of the ceilings."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rsi_ray.samplers.guarded import Guarded
from rsi_ray.samplers.history import best_first, excess, is_refused
from rsi_ray.samplers.levels import levels_of, number_of_levels, value_at
from rsi_ray.samplers.tpe import best_and_latest

Array = npt.NDArray[np.float64]
STARTUP = 10
# standard deviation of what a linear model can't say, where that of scores and weights is 1
NOISE = 0.3
# what a unit of excess costs in scores, tried from none on until a spec seems to be under the ceilings
PRICES = (0.0, *(2.0**power for power in range(-4, 8)))


def linear(seed: int) -> BaseSampler:
    """The linear model without repeats."""
    return Guarded(LinearSampler(seed=seed), seed=seed, shown=best_and_latest)


class LinearSampler(BaseSampler):
    """Draws a weight for each choice from what the study leaves possible, and proposes the best of each.

    Scores are modelled by their ranks; with several objectives, by the number of those that dominate. The
    excess of refused specs has a model of its own. Numbers of many values are cut into eight parts.

    Args:
        seed: of all draws.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        self._rng = random.Random(seed)
        self._normal = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self._proposal: dict[str, Any] = {}

    def reseed_rng(self) -> None:
        """Draw new seeds."""
        self._rng.seed()
        self._normal = np.random.default_rng()
        self._random.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Propose a value for every parameter that was ever asked; those that this spec has are taken."""
        del trial
        trials = study.get_trials(deepcopy=False)
        refused = [trial for trial in trials if is_refused(trial)]
        complete = [t for t in trials if t.state == TrialState.COMPLETE and not is_refused(t)]
        self._proposal = {}
        if len(complete) < STARTUP:
            return {}
        levels = Levels.of([*refused, *complete])
        weights = self._drawn(levels.rows(complete), normal_scores(complete, study.directions))
        over = np.zeros(len(weights))
        if refused:
            over = self._drawn(levels.rows([*complete, *refused]), _excesses(len(complete), refused))
        self._proposal = {
            name: value_at(levels.space[name], level, self._rng)
            for name, level in levels.best(weights, over).items()
        }
        return dict(levels.space)

    def _drawn(self, rows: Array, values: Array) -> Array:
        """Weights from their posterior; each was standard normal before."""
        precision = rows.T @ rows / NOISE**2 + np.eye(rows.shape[1])
        mean = np.linalg.solve(precision, rows.T @ values / NOISE**2)
        spread = np.linalg.solve(np.linalg.cholesky(precision).T, self._normal.standard_normal(len(mean)))
        return np.asarray(mean + spread, dtype=np.float64)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The best value of each parameter."""
        del study, trial
        return {name: self._proposal[name] for name in search_space}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value of a parameter that was never asked before."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)


@dataclass(frozen=True, kw_only=True)
class Levels:
    """One column for each level of each parameter, and a constant in the last one.

    Attributes:
        space: the parameters; of one that was asked in several ways, the latest.
        first: column of a parameter's first level.
        width: number of columns.
    """

    space: Mapping[str, BaseDistribution]
    first: Mapping[str, int]
    width: int

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial]) -> Levels:
        """The levels of every parameter of some trials that has more than one value."""
        asked = {name: one for trial in trials for name, one in trial.distributions.items()}
        space = {name: one for name, one in asked.items() if not one.single()}
        first, width = {}, 0
        for name, distribution in space.items():
            first[name] = width
            width += number_of_levels(distribution)
        return cls(space=space, first=first, width=width + 1)

    def rows(self, trials: Sequence[FrozenTrial]) -> Array:
        """One-hot rows, (trials, width)."""
        rows = np.zeros((len(trials), self.width))
        rows[:, -1] = 1.0
        for name, distribution in self.space.items():
            level_of = levels_of(distribution)
            for row, trial in zip(rows, trials, strict=True):
                level = level_of(trial.params[name]) if name in trial.params else None
                if level is not None:
                    row[self.first[name] + level] = 1.0
        return rows

    def best(self, weights: Array, over: Array) -> dict[str, int]:
        """Level of each parameter with the most weight, at the least price that brings the excess to 0."""
        chosen: dict[str, int] = {}
        for price in PRICES:
            worth = weights - price * over
            chosen = {
                name: int(np.argmax(worth[start : start + number_of_levels(self.space[name])]))
                for name, start in self.first.items()
            }
            if over[-1] + sum(over[self.first[name] + level] for name, level in chosen.items()) <= 0:
                break
        return chosen


def normal_scores(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> Array:
    """Standard normal quantiles of the ranks of complete trials, the best highest."""
    place = {trial.number: index for index, trial in enumerate(best_first(trials, directions))}
    quantile = NormalDist().inv_cdf
    return np.array([quantile(1 - (place[trial.number] + 0.5) / len(trials)) for trial in trials])


def _excesses(complete: int, refused: Sequence[FrozenTrial]) -> Array:
    """Excess in units of its median; how far complete trials are below 0 is not told, and taken as 1."""
    over = [excess(trial) for trial in refused]
    typical = median(over)
    return np.array([-1.0] * complete + [min(one / typical, 3.0) for one in over])
