"""Ray shell: puts the governed plugins around whatever a Tuner was configured with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.tune import TuneConfig
from ray.tune.impl.placeholder import create_resolvers_map, inject_placeholders, resolve_placeholders
from ray.tune.result import DEFAULT_METRIC
from ray.tune.schedulers import FIFOScheduler, create_scheduler
from ray.tune.search import SearchAlgorithm, Searcher, create_searcher
from ray.tune.search.search_generator import SearchGenerator
from ray.tune.stopper import CombinedStopper, FunctionStopper, Stopper
from ray.tune.utils import flatten_dict, merge_dicts

from safety.governance import Governance, Metric
from safety.scheduler import GovernedScheduler
from safety.search import GovernedSearch, PatientVariants
from safety.stopper import GovernedStopper

Config = Mapping[str, Any]

# sweeps that this process runs now, for the stoppers that Tune brings back from a pickle
_live: dict[str, GovernedStopper] = {}


def governed(config: TuneConfig, governance: Governance, param_space: dict[str, Any] | None) -> TuneConfig:
    """The configuration of a Tuner with governed search and scheduler in place of its own."""
    config = copy.copy(config)
    scheduler = config.scheduler or FIFOScheduler()
    if isinstance(scheduler, str):
        scheduler = create_scheduler(scheduler)
    search = create_searcher(config.search_alg) if isinstance(config.search_alg, str) else config.search_alg
    config.scheduler = GovernedScheduler(scheduler, governance)
    if search is None:
        concurrent, config.max_concurrent_trials = config.max_concurrent_trials or 0, None
        config.search_alg = PatientVariants(config.scheduler.is_holding, concurrent)
    else:
        config.search_alg = _governed_search(search, governance, _completion(param_space))
    return config


def _governed_search(
    search: Searcher | SearchAlgorithm, governance: Governance, complete: Callable[[Config], Config]
) -> Searcher | SearchAlgorithm:
    if isinstance(search, Searcher):
        return GovernedSearch(search, governance, complete=complete)
    if isinstance(search, SearchGenerator):
        search = copy.copy(search)
        search.searcher = GovernedSearch(search.searcher, governance, complete=complete)
    return search  # any other one's trials meet gate 2


def _completion(param_space: dict[str, Any] | None) -> Callable[[Config], Config]:
    """What Tune makes of a proposal: the constants of the space join it, and its objects come back."""
    resolvers = create_resolvers_map()
    constants = inject_placeholders(copy.deepcopy(param_space or {}), resolvers)

    def complete(proposed: Config) -> Config:
        whole: Config = merge_dicts(constants, copy.deepcopy(dict(proposed)))
        resolve_placeholders(whole, resolvers)
        return whole

    return complete


def metric_of(config: TuneConfig) -> Metric:
    """What is optimized, wherever it is said; None where it isn't."""
    said = (config, config.scheduler, config.search_alg)
    metrics = (getattr(place, "metric", None) for place in said)
    metric: Metric = next((metric for metric in metrics if metric), None)
    return None if metric == DEFAULT_METRIC else metric


class LiveStopper(GovernedStopper):
    """A stopper that comes back from a pickle as the one of the sweep that runs in this process.

    Tune restores the stopper of the run that was cut short, whose governor may be gone.
    """

    def __reduce__(self) -> tuple[Callable[[str], GovernedStopper | _NoStopper], tuple[str]]:
        """The sweep's name is all that lasts."""
        return _live_stopper, (self._governance.sweep,)


class _NoStopper(Stopper):
    """Stands for the stopper of a sweep that doesn't run in this process: it stops everything."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        del trial_id, result
        return True

    def stop_all(self) -> bool:
        return True


def _live_stopper(sweep: str) -> GovernedStopper | _NoStopper:
    return _live.get(sweep) or _NoStopper()


class _Criteria(Stopper):
    """Stops a trial at the values of a mapping, as Tune does."""

    def __init__(self, criteria: Mapping[str, Any]) -> None:
        self._criteria = criteria

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        del trial_id
        flat = flatten_dict(result)
        return any(name in flat and flat[name] >= value for name, value in self._criteria.items())

    def stop_all(self) -> bool:
        return False


@contextmanager
def governed_stop(stop: Any, governance: Governance, metric: Metric) -> Iterator[Stopper]:
    """The judge of reports before whatever stops trials; within, it is the sweep's in this process.

    Args:
        stop: of a Tuner's run configuration: nothing, criteria, a function, a stopper or several.
        governance: governor, sweep and price.
        metric: what is optimized.

    Raises:
        ValueError: it is none of these.
    """
    judge = _live[governance.sweep] = LiveStopper(governance, metric)
    try:
        yield CombinedStopper(judge, *_stoppers(stop))
    finally:
        del _live[governance.sweep]


def _stoppers(stop: Any) -> list[Stopper]:
    if not stop:
        return []
    if isinstance(stop, list | tuple):
        return [stopper for one in stop for stopper in _stoppers(one)]
    if isinstance(stop, Stopper):
        return [stop]
    if isinstance(stop, Mapping):
        return [_Criteria(stop)]
    if FunctionStopper.is_valid_function(stop):
        return [FunctionStopper(stop)]
    raise ValueError(f"stop: expected criteria, a function or a Stopper, found {stop!r:.80}")
