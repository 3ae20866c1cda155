"""What a study knows, sorted as its trials end: each is looked at once, however long the study is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rsi_ray.records import RECORD
from rsi_ray.samplers.known_specs import KnownSpecs

BEST_KEPT = 50


class History:
    """The trials of one study by what became of them, in the order of their ends.

    Attributes:
        complete: trained to the end, under the ceilings.
        pruned: stopped early.
        refused: told with a violated constraint.
        best: the best of `complete`, at least `BEST_KEPT` of them where there are so many.
        running: of now.

    Args:
        specs: where every spec that is known is added; None for nowhere.
    """

    def __init__(self, specs: KnownSpecs | None = None) -> None:
        self.complete: list[FrozenTrial] = []
        self.pruned: list[FrozenTrial] = []
        self.refused: list[FrozenTrial] = []
        self.best: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []
        self._specs = specs
        self._seen = 0
        self._unfinished: set[int] = set()

    def __len__(self) -> int:
        """Trials that a sampler can learn from."""
        return len(self.complete) + len(self.pruned) + len(self.refused)

    def refresh(self, study: optuna.Study) -> None:
        """Look at the trials that have begun or ended since the last time."""
        trials = study.get_trials(deepcopy=False)
        self._unfinished.update(range(self._seen, len(trials)))
        self._seen = len(trials)
        for number in sorted(self._unfinished):
            if trials[number].state.is_finished():
                self._unfinished.remove(number)
                self._add(trials[number], study.directions)
        unfinished = [trials[number] for number in sorted(self._unfinished)]
        self.running = [trial for trial in unfinished if trial.state == TrialState.RUNNING]

    def _add(self, trial: FrozenTrial, directions: Sequence[StudyDirection]) -> None:
        refused = is_refused(trial)
        # one without a record was interrupted, and will be run again
        ended = trial.params and (trial.state != TrialState.FAIL or RECORD in trial.user_attrs)
        if self._specs is not None and ended:
            self._specs.add(trial, refused=refused)
        if refused:
            self.refused.append(trial)
        elif trial.state == TrialState.PRUNED:
            self.pruned.append(trial)
        elif trial.state == TrialState.COMPLETE:
            self.complete.append(trial)
            self.best.append(trial)
            if len(self.best) > 2 * BEST_KEPT:
                self.best = best_first(self.best, directions)[:BEST_KEPT]


def is_refused(trial: FrozenTrial) -> bool:
    """Whether a trial was told with a violated constraint."""
    return any(over > 0 for over in trial.constraints.values())


def excess(trial: FrozenTrial) -> float:
    """How far a trial is over its constraints, all together."""
    return sum(over for over in trial.constraints.values() if over > 0)


def losses(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> tuple[float, ...]:
    """Values of a complete trial, so that less is better in each."""
    signs = (-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in directions)
    return tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))


def best_first(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """Complete trials by the number of those that dominate them, then by age."""
    if len(directions) == 1 or not trials:
        return sorted(trials, key=lambda trial: losses(trial, directions))
    points = np.array([losses(trial, directions) for trial in trials])
    no_worse = (points[:, None] <= points).all(axis=2)
    dominators = (no_worse & ~no_worse.T).sum(axis=0)
    return [trials[index] for index in np.argsort(dominators, kind="stable")]
