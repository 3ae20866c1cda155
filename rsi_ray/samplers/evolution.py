"""Regularized evolution for define-by-run spaces, with constraints and several objectives.

Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rsi_ray.samplers.guarded import Guarded
from rsi_ray.samplers.history import History, best_first, is_refused
from rsi_ray.samplers.known_specs import number_of_values, values_of
from rsi_ray.samplers.levels import NUMBERS, on_grid

# the whole population compared found more on published tables than the source's fewer: see bench/search.py
POPULATION = 20
TOURNAMENT = 20
# numbers on a grid that is no finer are mutated to any other value; the rest by a normal step
FEW = 8
STEP = 0.2


def evolution(seed: int) -> BaseSampler:
    """Regularized evolution without repeats."""
    return Guarded(EvolutionSampler(seed=seed), seed=seed, shown=latest)


def latest(history: History, _study: optuna.Study) -> list[FrozenTrial]:
    """The population."""
    return history.complete[-POPULATION:]


class EvolutionSampler(BaseSampler):
    """The latest trials are the population; a child is the best of some of them, with one parameter changed.

    Trials that were refused or stopped early are no parents. Parameters that the change brings up are drawn
    at random. With several objectives, fewer dominators in the tournament are better.

    Args:
        population: trials that are alive; until there are so many, specs are drawn at random.
        tournament: of these, candidates to be the parent.
        seed: of all draws.
    """

    def __init__(
        self, *, population: int = POPULATION, tournament: int = TOURNAMENT, seed: int | None = None
    ) -> None:
        if not 1 <= tournament <= population:
            raise ValueError(f"tournament: expected 1 to the population, {population}, found {tournament}")
        self._population, self._tournament = population, tournament
        self._rng = random.Random(seed)
        self._random = RandomSampler(seed=seed)
        self._parent: FrozenTrial | None = None

    def reseed_rng(self) -> None:
        """Draw new seeds."""
        self._rng.seed()
        self._random.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Choose the parent: its parameters are what a child inherits."""
        del trial
        complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        alive = [trial for trial in complete if not is_refused(trial)][-self._population :]
        self._parent = self._choose(alive, study.directions)
        if self._parent is None:
            return {}
        return {
            name: distribution
            for name, distribution in self._parent.distributions.items()
            if not distribution.single()
        }

    def _choose(
        self, alive: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
    ) -> FrozenTrial | None:
        if len(alive) < self._population:
            return None
        return best_first(self._rng.sample(alive, self._tournament), directions)[0]

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parent's parameters, one of them changed."""
        del study, trial
        if self._parent is None or not search_space:
            return {}
        name = self._rng.choice(list(search_space))
        inherited = {name: self._parent.params[name] for name in search_space}
        return inherited | {name: changed(inherited[name], search_space[name], self._rng)}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value of a parameter that the parent doesn't have."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def changed(value: Any, distribution: BaseDistribution, rng: random.Random) -> Any:
    """Another value of a parameter: any other one, or a number near it where there are many."""
    if isinstance(distribution, NUMBERS) and number_of_values(distribution) > FEW:
        return _stepped(value, distribution, rng)
    return rng.choice([other for other in values_of(distribution) or () if other != value])


def _stepped(
    value: float, distribution: FloatDistribution | IntDistribution, rng: random.Random
) -> int | float:
    """A normal step of a fifth of the range, or of its logarithm's, drawn until it is in the range."""
    scale = math.log if distribution.log else float
    low, high = scale(distribution.low), scale(distribution.high)
    while True:
        place = rng.gauss(scale(value), STEP * (high - low))
        stepped = on_grid(math.exp(place) if distribution.log else place, distribution)
        if low <= place <= high and stepped != value:
            return stepped
