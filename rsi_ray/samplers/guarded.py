"""A sampler under guard: it sees what it can use in time, and proposes nothing that is known."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from rsi_ray.samplers.history import History
from rsi_ray.samplers.known_specs import KnownSpecs, Place, values_of

# neighbours of a known proposal that are tried before one is taken from farther away
NEIGHBOURS = 30

Shown = Callable[[History, optuna.Study], Sequence[FrozenTrial]]


class StudyView(optuna.Study):
    """A study that shows only some of its trials; what is stored goes to the study itself."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self.__dict__.update(study.__dict__)
        self._shown = sorted(trials, key=lambda trial: trial.number)

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials shown, in the order of their numbers."""
        trials = [trial for trial in self._shown if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        # Optuna's samplers ask here; a view is its own cache
        del use_cache
        return self.get_trials(deepcopy, states)


class Guarded(BaseSampler):
    """Asks another sampler, and answers elsewhere what it shouldn't propose.

    A proposal that the study knows already, measured, stopped, failed or refused, is moved to a spec near
    it that it doesn't know. Where every spec is known, one is proposed again, but none that was refused,
    unless all were. One instance serves one study.

    Args:
        inner: the sampler that is asked.
        seed: of the moves.
        shown: the trials that the inner sampler is shown, running ones aside; None for the study as it is.
    """

    def __init__(self, inner: BaseSampler, *, seed: int, shown: Shown | None = None) -> None:
        self.inner = inner
        self._shown = shown
        self._specs = KnownSpecs()
        self._history = History(self._specs)
        self._rng = random.Random(seed)
        self._random = RandomSampler(seed=seed)
        self._asked = -1
        self._study: optuna.Study
        self._space: dict[str, BaseDistribution] = {}
        self._proposal: dict[str, Any] = {}

    def reseed_rng(self) -> None:
        """Draw new seeds."""
        self._rng.seed()
        self._random.reseed_rng()
        self.inner.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: what the inner sampler proposes as a whole is given parameter by parameter."""
        self._ask(study, trial)
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        del study, trial, search_space
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The inner sampler's value, or another one where that leads to nothing but known specs."""
        if self._asked != trial.number:
            self._ask(study, trial)
        if param_name in self._proposal and self._space[param_name] == param_distribution:
            value = self._proposal[param_name]
        else:
            value = self.inner.sample_independent(self._study, trial, param_name, param_distribution)
        place = self._specs.place(trial.params)
        if place is None or place.is_open(param_name, value):
            return value
        return self._elsewhere(place, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Tell the inner sampler."""
        self.inner.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the inner sampler."""
        self.inner.after_trial(study, trial, state, values)

    def _ask(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._history.refresh(study)
        self._study = study
        if self._shown is not None:
            self._study = StudyView(study, [*self._shown(self._history, study), *self._history.running])
        self._space = self.inner.infer_relative_search_space(self._study, trial)
        self._proposal = self.inner.sample_relative(self._study, trial, self._space)
        if self._proposal and self._proposal in self._specs:
            self._proposal = self._neighbour(self._proposal)
        self._asked = trial.number

    def _neighbour(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """The proposal with one parameter changed; a neighbour's neighbour, where all those are known."""
        moved = dict(known)
        for attempt in range(1, 10 * NEIGHBOURS):
            name = self._rng.choice(list(moved))
            others = [value for value in values_of(self._space[name]) or [] if value != moved[name]]
            if others:
                neighbour = {**moved, name: self._rng.choice(others)}
                if neighbour not in self._specs:
                    return neighbour
                if attempt % NEIGHBOURS == 0:
                    moved = neighbour
        return moved

    def _elsewhere(self, place: Place, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        values = values_of(distribution)
        if values is None:
            return self._random.sample_independent(self._study, trial, name, distribution)
        # nothing is open where the choices themselves have changed since
        return self._rng.choice([value for value in values if place.is_open(name, value)] or values)
