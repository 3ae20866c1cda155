"""The learner of architectures as a sampler."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from rsi_ray.samplers.guarded import Guarded
from rsi_ray.samplers.history import History, is_refused
from rsi_ray.samplers.meta_learner import MetaLearner

PREDICTION = "meta:prediction"


def meta(seed: int) -> BaseSampler:
    """The learner without repeats."""
    return Guarded(MetaSampler(seed=seed), seed=seed)


class MetaSampler(BaseSampler):
    """Proposes the best of many drafts by a predictor; a controller decides what the draft has not got.

    Args:
        seed: of all draws.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        self.learner = MetaLearner(seed)
        self._history = History()
        self._proposals: dict[int, dict[str, Any]] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher; a lock stays where it is."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a lock of its own."""
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def reseed_rng(self) -> None:
        """Draw new seeds."""
        self.learner.reseed()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Choose a draft: its parameters are what is proposed."""
        with self._lock:
            self._history.refresh(study)
            proposal: dict[str, Any] = {}
            if self.learner.learn(self._history, study.directions):
                running = [one.params for one in self._history.running if one.params]
                proposal, told = self.learner.propose(trial.number, running, refused_in_a_row(study))
                if told is not None:
                    study._storage.set_trial_system_attr(trial._trial_id, PREDICTION, asdict(told))
            self._proposals[trial.number] = proposal
            return {name: self.learner.space[name] for name in proposal}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The draft's values; the controller's for what it has not got."""
        del study
        with self._lock:
            proposal = self._proposals.pop(trial.number, {})
            found: dict[str, Any] = {}
            for name, distribution in search_space.items():
                value = proposal.get(name)
                fits = name in proposal and self.learner.space.get(name) == distribution
                found[name] = value if fits else self.learner.decide(found, name, distribution)
            return found

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The controller's decision after those that the trial has made."""
        del study
        with self._lock:
            return self.learner.decide(trial.params, param_name, param_distribution)

    def save(self, path: Path) -> None:
        """Write what was learned to a safetensors file, for the next study; see `MetaLearner.save`."""
        with self._lock:
            self.learner.save(path)

    def load(self, path: Path) -> None:
        """Start from what was learned in another study; see `MetaLearner.load`."""
        with self._lock:
            self.learner.load(path)


def refused_in_a_row(study: optuna.Study) -> int:
    """How many of the latest trials that ended were refused."""
    count = 0
    for trial in reversed(study.get_trials(deepcopy=False)):
        if trial.state.is_finished() and not is_refused(trial):
            break
        count += trial.state.is_finished()
    return count
