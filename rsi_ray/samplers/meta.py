"""The learner of architectures as a sampler."""

from __future__ import annotations

import threading
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from rsi_ray.meta_learner import MetaLearner
from rsi_ray.samplers.guarded import Guarded
from rsi_ray.samplers.history import History, is_refused

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
                running = [
                    one.params for one in self._history.running if one.number != trial.number and one.params
                ]
                proposal = self.learner.propose(trial.number, running, self._refused_in_a_row(study))
                told = self.learner.prediction(trial.number)
                if told is not None:
                    said = {"mean": told.mean, "std": told.std, "admitted": told.admitted}
                    study._storage.set_trial_system_attr(trial._trial_id, PREDICTION, said)
            self._proposals[trial.number] = proposal
            return {name: self.learner.space[name] for name in proposal}

    def _refused_in_a_row(self, study: optuna.Study) -> int:
        count = 0
        for trial in reversed(study.get_trials(deepcopy=False)):
            if trial.state.is_finished():
                if not is_refused(trial):
                    break
                count += 1
        return count

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The draft's values; the controller's for what it has not got."""
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
        with self._lock:
            return self.learner.decide(trial.params, param_name, param_distribution)
