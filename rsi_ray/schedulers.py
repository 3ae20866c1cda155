"""The schedulers by name: which trials are stopped early, paused or mutated."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial
from ray import tune
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.schedulers.pb2 import PB2

from rsi_ray.hyperparameters import PREFIX
from rsi_ray.objectives import SCORE
from search_spaces.random_trial import RandomTrial
from search_spaces.space import Suggests

TIME = "training_iteration"


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions:
    """What the schedulers by name are made from.

    Attributes:
        reports: of a full training.
        grace_period: reports that every trial makes.
        reduction_factor: one in so many goes on (ASHA, HyperBand).
        interval: reports between two mutations (PBT, PB2).
        mutable: distributions of the hyperparameters that may change while a candidate is trained.
    """

    reports: int
    grace_period: int = 2
    reduction_factor: int = 3
    interval: int = 1
    mutable: Mapping[str, BaseDistribution] = field(default_factory=dict)


class _WithoutSearch:
    """A controller that shows no search algorithm."""

    search_alg = None

    def __init__(self, controller: Any) -> None:
        self._controller = controller

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)


class SearchedPBT(PopulationBasedTraining):
    """PBT beside a searcher: Ray refuses any, as it wouldn't hear what was trained; ours does."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial, wherever it comes from."""
        shown: Any = _WithoutSearch(tune_controller)
        super().on_trial_add(shown, trial)


class SearchedPB2(PB2):
    """PB2 beside a searcher, as `SearchedPBT`."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial, wherever it comes from."""
        shown: Any = _WithoutSearch(tune_controller)
        super().on_trial_add(shown, trial)


def _fifo(_options: SchedulerOptions) -> TrialScheduler:
    return FIFOScheduler()


def _asha(options: SchedulerOptions) -> TrialScheduler:
    return ASHAScheduler(
        time_attr=TIME,
        max_t=options.reports,
        grace_period=min(options.grace_period, options.reports),
        reduction_factor=options.reduction_factor,
    )


def _hyperband(options: SchedulerOptions) -> TrialScheduler:
    return HyperBandScheduler(
        time_attr=TIME, max_t=options.reports, reduction_factor=options.reduction_factor
    )


def _median(options: SchedulerOptions) -> TrialScheduler:
    return MedianStoppingRule(time_attr=TIME, grace_period=options.grace_period)


def _pbt(options: SchedulerOptions) -> TrialScheduler:
    mutations = {name: _resampled(distribution) for name, distribution in _mutable(options).items()}
    return SearchedPBT(
        time_attr=TIME,
        perturbation_interval=options.interval,
        burn_in_period=options.grace_period,
        hyperparam_mutations=mutations,
        custom_explore_fn=partial(within, options.mutable),
    )


def _pb2(options: SchedulerOptions) -> TrialScheduler:
    bounds: dict[str, Any] = {
        name: [distribution.low, distribution.high]
        for name, distribution in _mutable(options).items()
        if isinstance(distribution, FloatDistribution)
    }
    if not bounds:
        raise ValueError("scheduler: pb2 changes real hyperparameters; search training.learning_rate")
    return SearchedPB2(
        time_attr=TIME,
        perturbation_interval=options.interval,
        hyperparam_bounds=bounds,
        custom_explore_fn=partial(within, options.mutable),
    )


SCHEDULERS: dict[str, Callable[[SchedulerOptions], TrialScheduler]] = {
    "fifo": _fifo,
    "asha": _asha,
    "hyperband": _hyperband,
    "median": _median,
    "pbt": _pbt,
    "pb2": _pb2,
}


def scheduler_of(name: Any, options: SchedulerOptions) -> TrialScheduler:
    """A new scheduler.

    Raises:
        ValueError: no scheduler has this name, or it has nothing to work on.
    """
    if not isinstance(name, str) or name not in SCHEDULERS:
        known = ", ".join(SCHEDULERS)
        raise ValueError(f"scheduler: {name!r}, expected one of {known}, or a function that gives one")
    return SCHEDULERS[name](options)


def recall(scheduler: TrialScheduler, ended: Iterable[Mapping[int, float]]) -> None:
    """Show a new scheduler the candidates of an earlier process, so that it stops as if it had seen them.

    ASHA and the median rule are shown them; HyperBand, PBT and PB2 go by what runs together, and begin anew.

    Args:
        scheduler: that has heard of no trial yet.
        ended: score by report of each candidate, in order; more is better.
    """
    for index, scores in enumerate(ended):
        earlier: Any = _Earlier(f"earlier-{index}")
        if isinstance(scheduler, ASHAScheduler):
            for step, score in sorted(scores.items()):
                scheduler._brackets[0].on_result(earlier, step, score)
        elif isinstance(scheduler, MedianStoppingRule) and scores:
            results = [{TIME: step, SCORE: score} for step, score in sorted(scores.items())]
            # of one that ends, Tune tells the last result again
            scheduler._results[earlier] = [*results, results[-1]]


@dataclass(frozen=True)
class _Earlier:
    """A trial of an earlier process, as far as a scheduler looks at one."""

    trial_id: str


def within(mutable: Mapping[str, BaseDistribution], config: dict[str, Any]) -> dict[str, Any]:
    """A mutated configuration, each hyperparameter back within its range: PBT multiplies past it."""
    kept = dict(config)
    for name, distribution in mutable.items():
        if isinstance(distribution, FloatDistribution | IntDistribution):
            kept[name] = min(max(config[name], distribution.low), distribution.high)
    return kept


def _mutable(options: SchedulerOptions) -> Mapping[str, BaseDistribution]:
    if not options.mutable:
        raise ValueError("scheduler: it changes hyperparameters while it trains; search at least one")
    return options.mutable


def _resampled(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return tune.randint(distribution.low, distribution.high + 1)
    if isinstance(distribution, FloatDistribution) and distribution.log:
        return tune.loguniform(distribution.low, distribution.high)
    if isinstance(distribution, FloatDistribution):
        return tune.uniform(distribution.low, distribution.high)
    raise TypeError(f"scheduler: {distribution!r} can't be mutated")


def mutable_distributions(space: Suggests[Any], rng: random.Random) -> dict[str, BaseDistribution]:
    """Distributions of the hyperparameters of training that are searched, by parameter name."""
    drawn = RandomTrial(rng)
    space.suggest(drawn)
    asked = FixedTrial(dict(drawn.params))
    space.suggest(asked)
    return {name: known for name, known in asked.distributions.items() if name.startswith(PREFIX)}
