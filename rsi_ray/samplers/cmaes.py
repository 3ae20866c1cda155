"""CMA-ES for the numbers of a space, TPE for the rest of it."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, TPESampler
from optuna.trial import FrozenTrial

from rsi_ray.samplers.guarded import Guarded, StudyView
from rsi_ray.samplers.refused import refused_as_worst
from rsi_ray.samplers.tpe import best_and_latest


def cmaes(seed: int) -> BaseSampler:
    """CMA-ES without repeats, for one objective."""
    return Guarded(CmaEsAndTpe(seed=seed), seed=seed, shown=best_and_latest)


class CmaEsAndTpe(BaseSampler):
    """Numbers by CMA-ES, which is told refused specs as worse than any other; choices by TPE."""

    def __init__(self, *, seed: int) -> None:
        self._tpe = TPESampler(seed=seed)
        self._cmaes = CmaEsSampler(independent_sampler=self._tpe, warn_independent_sampling=False, seed=seed)
        self._numbers: dict[str, BaseDistribution] = {}

    def reseed_rng(self) -> None:
        """Draw new seeds."""
        self._cmaes.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every parameter that all trials have."""
        self._numbers = self._cmaes.infer_relative_search_space(_as_cmaes_sees(study), trial)
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Numbers and choices."""
        choices = {
            name: distribution
            for name, distribution in search_space.items()
            if self._numbers.get(name) != distribution
        }
        numbers = {name: distribution for name, distribution in search_space.items() if name not in choices}
        proposed = self._tpe.sample_relative(study, trial, choices)
        return proposed | self._cmaes.sample_relative(_as_cmaes_sees(study), trial, numbers)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A parameter that not all trials have, by TPE."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def _as_cmaes_sees(study: optuna.Study) -> optuna.Study:
    return StudyView(study, refused_as_worst(study))
