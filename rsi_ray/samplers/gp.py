"""Gaussian process on a few trials while a study is young, TPE after that."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler
from optuna.trial import FrozenTrial

from rsi_ray.samplers.guarded import Guarded
from rsi_ray.samplers.history import History, best_first
from rsi_ray.samplers.refused import with_measured_constraints
from rsi_ray.samplers.tpe import tpe

# of each kind: best, latest and refused; a fit takes time as the cube of all
MODELLED = 50
# proposals, refused ones included, after which TPE takes over
YOUNG = 300


def gp(seed: int) -> BaseSampler:
    """A Gaussian process without repeats, then TPE."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        inner = GPSampler(deterministic_objective=True, warn_independent_sampling=False, seed=seed)
    return HandOver(Guarded(inner, seed=seed, shown=modelled), tpe(seed), young=YOUNG)


def modelled(history: History, study: optuna.Study) -> list[FrozenTrial]:
    """The best, the latest and the latest refused trials, each with one constraint."""
    best = best_first(history.best, study.directions)[:MODELLED]
    complete = {trial.number: trial for trial in (*best, *history.complete[-MODELLED:])}
    return with_measured_constraints(list(complete.values()), history.refused[-MODELLED:])


class HandOver(BaseSampler):
    """One sampler for the first proposals of a study, another one for the rest."""

    def __init__(self, first: BaseSampler, then: BaseSampler, *, young: int) -> None:
        self.first, self.then, self._young = first, then, young

    def reseed_rng(self) -> None:
        """Draw new seeds."""
        self.first.reseed_rng()
        self.then.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """That of the one in charge."""
        return self._in_charge(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal of the one in charge."""
        return self._in_charge(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """One parameter by the one in charge."""
        return self._in_charge(trial).sample_independent(study, trial, param_name, param_distribution)

    def _in_charge(self, trial: FrozenTrial) -> BaseSampler:
        return self.first if trial.number < self._young else self.then
