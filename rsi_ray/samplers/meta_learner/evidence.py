"""What a study and the memory tell of one space, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from rsi_ray.samplers.history import History, excess
from rsi_ray.samplers.meta_learner.fields import Fields
from rsi_ray.samplers.meta_learner.standings import standing_of_stopped, standings
from rsi_ray.samplers.meta_learner.state import Remembered

Array = npt.NDArray[np.float64]
# of each kind, that are looked at beside the best; all have been, while they were the latest
LATEST = 300


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Candidates by what is known of them.

    Attributes:
        remembered: of other studies, (rows, fields).
        measured: of this one, complete, then stopped, (rows, fields).
        scores: quantiles of the remembered, then of the measured, (rows,).
        numbers: of the trials that were measured.
        refused: over a ceiling, (rows, fields).
        excess: of the refused, (rows,).
    """

    remembered: Array
    measured: Array
    scores: Array
    numbers: Sequence[int]
    refused: Array
    excess: Array

    @property
    def scored(self) -> Array:
        """The remembered, then the measured, (rows, fields)."""
        return np.concatenate([self.remembered, self.measured])

    @property
    def everything(self) -> Array:
        """All rows, (rows, fields)."""
        return np.concatenate([self.remembered, self.measured, self.refused])

    @property
    def best(self) -> float:
        """Best score of this study; where it has none, of the memory."""
        own = self.scores[len(self.remembered) :]
        return float(own.max() if len(own) else self.scores.max())


class Rows:
    """The rows of a study's trials, each made once.

    Args:
        fields: of the space.
        memory: candidates of other studies.
    """

    def __init__(self, fields: Fields, memory: Sequence[Remembered]) -> None:
        self.fields, self.memory = fields, memory
        self._made: dict[int, Array] = {}
        self._remembered = self._stacked([fields.row(one.params) for one in memory])
        self._standings = np.array([one.standing for one in memory])

    def evidence(self, history: History, directions: Sequence[StudyDirection]) -> Evidence:
        """The best and the latest of what a study knows; of several objectives, those that ended whole."""
        latest = history.complete[-LATEST:]
        complete = list({trial.number: trial for trial in (*history.best, *latest)}.values())
        stopped = history.pruned[-LATEST:] if len(directions) == 1 else []
        refused = history.refused[-LATEST:]
        own = standings(complete, directions) if complete else np.empty(0)
        late = [standing_of_stopped(one, complete, directions[0]) for one in stopped]
        return Evidence(
            remembered=self._remembered,
            measured=self._of([*complete, *stopped]),
            scores=np.concatenate([self._standings, own, late]),
            numbers=[trial.number for trial in (*complete, *stopped)],
            refused=self._of(refused),
            excess=np.array([excess(trial) for trial in refused]),
        )

    def _of(self, trials: Sequence[FrozenTrial]) -> Array:
        for trial in trials:
            if trial.number not in self._made:
                self._made[trial.number] = self.fields.row(trial.params)
        return self._stacked([self._made[trial.number] for trial in trials])

    def _stacked(self, rows: Sequence[Array]) -> Array:
        return np.stack(rows) if rows else np.empty((0, len(self.fields)))
