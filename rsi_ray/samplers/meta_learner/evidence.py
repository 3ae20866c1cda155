"""What a study and the memory tell of one space, as rows."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from rsi_ray.samplers.history import History, excess
from rsi_ray.samplers.meta_learner.fields import Fields
from rsi_ray.samplers.meta_learner.standings import standings, standings_of_stopped
from rsi_ray.samplers.meta_learner.state import Remembered

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
T = TypeVar("T", Array, Floats)
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
        features: of the remembered, then of the measured, (rows, width).
        refused: over a ceiling, (rows, fields).
        refused_features: (rows, width).
        excess: of the refused, (rows,).
        known: every row that was ever measured or refused in this study, as bytes.
    """

    remembered: Array
    measured: Array
    scores: Array
    numbers: Sequence[int]
    features: Floats
    refused: Array
    refused_features: Floats
    excess: Array
    known: Set[bytes]

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
    """The rows of a study's trials and their features, each made once.

    Args:
        fields: of the space.
        memory: candidates of other studies.
    """

    def __init__(self, fields: Fields, memory: Sequence[Remembered]) -> None:
        self.fields, self.memory = fields, memory
        self._index: dict[int, int] = {}
        self._known: set[bytes] = set()
        self._trials: list[FrozenTrial] = []
        self._excess: list[float] = []
        self._complete: list[int] = []
        self._stopped: list[int] = []
        self._refused: list[int] = []
        self._rows = np.empty((0, len(fields)))
        self._remembered = np.concatenate([self._rows, *(fields.row(one.params)[None] for one in memory)])
        self._standings = np.array([one.standing for one in memory])
        self._features = fields.features(self._rows)
        self._remembered_features = fields.features(self._remembered)

    def evidence(self, history: History, directions: Sequence[StudyDirection]) -> Evidence:
        """The best and the latest of what a study knows; of several objectives, those that ended whole."""
        best = [trial for trial in history.best if trial.number not in self._index]
        self._make(best)
        latest = self._latest(history.complete, self._complete)
        at = list(dict.fromkeys([*(self._index[trial.number] for trial in history.best), *latest]))
        complete = [self._trials[index] for index in at]
        stopped = []
        if len(directions) == 1:
            at += self._latest(history.pruned, self._stopped)
            stopped = [self._trials[index] for index in at[len(complete) :]]
        over = self._latest(history.refused, self._refused)
        own = standings(complete, directions) if complete else np.empty(0)
        late = standings_of_stopped(stopped, complete, directions[0])
        return Evidence(
            remembered=self._remembered,
            measured=self._rows[at],
            scores=np.concatenate([self._standings, own, late]),
            numbers=[self._trials[index].number for index in at],
            features=np.concatenate([self._remembered_features, self._features[at]]),
            refused=self._rows[over],
            refused_features=self._features[over],
            excess=np.array([self._excess[index] for index in over]),
            known=self._known,
        )

    def _latest(self, trials: Sequence[FrozenTrial], kept: list[int]) -> list[int]:
        """Where the rows of the latest trials of a kind are.

        Args:
            trials: all of the kind, in the order of their ends.
            kept: where the rows are of the first of them; gets the others.
        """
        if not kept:
            # those before the latest are looked at only if they are among the best
            kept += [-1] * max(0, len(trials) - LATEST)
        new = trials[len(kept) :]
        self._make([trial for trial in new if trial.number not in self._index])
        kept += [self._index[trial.number] for trial in new]
        return kept[-LATEST:]

    def _make(self, trials: Sequence[FrozenTrial]) -> None:
        if not trials:
            return
        rows = np.stack([self.fields.row(trial.params) for trial in trials])
        self._index |= {trial.number: len(self._rows) + place for place, trial in enumerate(trials)}
        self._trials += trials
        self._excess += [excess(trial) for trial in trials]
        self._known.update(row.tobytes() for row in rows)
        self._rows = np.concatenate([self._rows, rows])
        self._features = np.concatenate([self._features, self.fields.features(rows)])
