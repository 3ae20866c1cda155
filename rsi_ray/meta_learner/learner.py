"""The learner of one study: what it knows of the space, what it proposes, and what it carries to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from rsi_ray.meta_learner.ceilings import Ceilings
from rsi_ray.meta_learner.controller import Controller
from rsi_ray.meta_learner.drafts import mixed, neighbours, whole
from rsi_ray.meta_learner.fields import Fields
from rsi_ray.meta_learner.predictor import Forecast, Predictor
from rsi_ray.meta_learner.presence import Presence
from rsi_ray.meta_learner.standings import standing_of_stopped, standings
from rsi_ray.samplers.history import History, excess

Array = npt.NDArray[np.float64]
STARTUP = 8
# drafts of a proposal: of the controller, anywhere, mixed of the best, near each of the best; then climbing
WRITTEN, ANYWHERE, MIXED, NEAR, PARENTS = 24, 40, 48, 40, 5
CLIMBS, CLIMBED, CLIMB_NEAR = 3, 3, 30
# proposals between two trainings of the controller
SCHEDULE = 4


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is expected of a proposal before it is measured.

    Attributes:
        mean: standard normal quantile of its rank among the measured.
        std: standard deviation of that, by the whole ensemble.
        admitted: probability that it is under every ceiling.
    """

    mean: float
    std: float
    admitted: float


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """A candidate of another study.

    Attributes:
        params: its configuration.
        standing: quantile of its rank there.
    """

    params: Mapping[str, Any]
    standing: float


class MetaLearner:
    """A controller, a predictor and a memory for one study at a time.

    Args:
        seed: of everything that is drawn.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.controller = Controller(int(self.rng.integers(2**31)))
        self.scales: dict[str, float] = {}
        self.memory: list[Remembered] = []
        self.remembered_space: dict[str, BaseDistribution] = {}
        self.fields = Fields(())
        self.space: dict[str, BaseDistribution] = {}
        self._foretold: dict[int, Forecast] = {}
        self._seen = 0
        self._reset()

    def _reset(self) -> None:
        self._predictor: Predictor | None = None
        self._rows: dict[int, tuple[Array, Array]] = {}
        self._presence: Presence | None = None
        self._written = np.empty((0, len(self.fields)))
        self._asked = 0

    def reseed(self) -> None:
        """Draw new seeds."""
        self.rng = np.random.default_rng()

    # ---- learning

    def learn(self, history: History, directions: Sequence[StudyDirection]) -> bool:
        """Learn from what a study knows; whether that is enough for a proposal."""
        self._meet(history)
        complete, stopped = history.complete, history.pruned if len(directions) == 1 else []
        self._memory_rows = self._remembered()
        if not len(self.fields) or len(complete) + len(self._memory_rows[0]) < STARTUP:
            return False
        measured = [*complete, *stopped]
        self._measured, x = self._rows_of(measured)
        self._scores = standings(complete, directions) if complete else np.empty(0)
        late = [standing_of_stopped(one, complete, directions[0]) for one in stopped]
        self._scores = np.concatenate([self._scores, late])
        self._judge(measured)
        refused_rows, refused = self._rows_of(history.refused)
        self._refused = refused_rows
        if self._predictor is None:
            self._predictor = Predictor(self.fields, self.scales, self.rng)
            self._ceilings = Ceilings(self.fields.blocks)
        self._train(x, complete)
        over = np.array([excess(trial) for trial in history.refused])
        self._ceilings.learn(x[: len(complete)], [one.number for one in complete], refused, over)
        return True

    def _meet(self, history: History) -> None:
        known = [*history.complete, *history.pruned, *history.refused]
        if len(known) == self._seen and self.space:
            return
        asked: dict[str, BaseDistribution] = {} if len(known) >= STARTUP else dict(self.remembered_space)
        latest = known if self._seen == 0 else sorted(known, key=lambda trial: trial.number)
        for trial in latest:
            asked.update(trial.distributions)
        self._seen = len(known)
        if asked != self.space:
            if self._predictor is not None:
                self.scales |= self._predictor.scales()
            self.space = asked
            self.fields = Fields.of(asked)
            self.controller.meet(self.fields)
            self._reset()

    def _rows_of(self, trials: Sequence[FrozenTrial]) -> tuple[Array, Array]:
        for trial in trials:
            if trial.number not in self._rows:
                row = self.fields.row(trial.params)
                self._rows[trial.number] = (row, self.fields.features(row[None])[0])
                self._presence = None
        if not trials:
            return np.empty((0, len(self.fields))), np.empty((0, len(self.fields.blocks)))
        rows, features = zip(*(self._rows[trial.number] for trial in trials), strict=True)
        return np.stack(rows), np.stack(features)

    def _remembered(self) -> tuple[Array, Array]:
        if not self.memory or not len(self.fields):
            return np.empty((0, len(self.fields))), np.empty(0)
        rows = np.stack([self.fields.row(one.params) for one in self.memory])
        return rows, np.array([one.standing for one in self.memory])

    def _judge(self, measured: Sequence[FrozenTrial]) -> None:
        for index, trial in enumerate(measured):
            told = self._foretold.pop(trial.number, None)
            if told is not None and self._predictor is not None and len(told.means) == len(told.weights):
                others = np.delete(self._scores, index)
                self._predictor.judge(told.means[:, 0], told.spreads[:, 0], self._scores[index], others)

    def _train(self, x: Array, complete: Sequence[FrozenTrial]) -> None:
        rows, scores = self._memory_rows
        x = np.concatenate([self.fields.features(rows), x]) if len(rows) else x
        foreign = np.concatenate([np.ones(len(rows)), np.zeros(len(self._scores))])
        y = np.concatenate([scores, self._scores])
        assert self._predictor is not None
        self._predictor.learn(x, y, foreign, foreign == 0)
        self._x, self._y = x, y

    # ---- proposing

    def propose(self, number: int, running: Sequence[Mapping[str, Any]], caution: int) -> dict[str, Any]:
        """The best of many drafts; `prediction` says what is expected of it."""
        assert self._predictor is not None
        everything = np.concatenate([self._memory_rows[0], self._measured, self._refused])
        if self._presence is None:
            self._presence = Presence.of(everything, self.fields.choices)
        known = {row.tobytes() for row in np.concatenate([self._measured, self._refused])}
        known |= {self.fields.row(params).tobytes() for params in running}
        fresh = partial(self._fresh, known)
        best = float(self._scores.max()) if len(self._scores) else float(self._memory_rows[1].max())
        drafts = fresh(self._first_drafts())
        worth = self._worth(drafts, best, caution)
        for _ in range(CLIMBS):
            top = np.argsort(-worth)[:CLIMBED]
            near = [
                neighbours(self.fields, row, CLIMB_NEAR, self.rng)
                for row in whole(self.fields, drafts[top], self.rng)
            ]
            more = fresh(np.concatenate(near)) if near else drafts[:0]
            if not len(more):
                break
            drafts = np.concatenate([drafts, more])
            worth = np.concatenate([worth, self._worth(more, best, caution)])
        if not len(drafts):
            return {}
        chosen = drafts[[int(worth.argmax())]]
        self._foretold[number] = self._predictor.forecast(self.fields.features(chosen))
        self._admitted = float(np.exp(self._ceilings.log_admitted(self.fields.features(chosen))[0]))
        return self.fields.params(chosen[0])

    def prediction(self, number: int) -> Prediction | None:
        """What is expected of the latest proposal."""
        told = self._foretold.get(number)
        if told is None:
            return None
        return Prediction(mean=float(told.mean()[0]), std=float(told.spread()[0]), admitted=self._admitted)

    def _first_drafts(self) -> Array:
        assert self._presence is not None
        rows = np.concatenate([self._memory_rows[0], self._measured])
        scores = np.concatenate([self._memory_rows[1], self._scores])
        order = np.argsort(-scores, kind="stable")
        best = whole(self.fields, rows[order[: 2 * PARENTS]], self.rng)
        return np.concatenate(
            [
                self._writing(),
                self.fields.draw(self.rng, ANYWHERE),
                mixed(self.fields, best, MIXED, self.rng),
                *(neighbours(self.fields, row, NEAR, self.rng) for row in best[:PARENTS]),
            ]
        )

    def _writing(self) -> Array:
        """Drafts of the controller, which is trained on what the predictor says of them now and then."""
        if self._asked % SCHEDULE == 0:
            self._written = self.write(WRITTEN)
            features = self.fields.features(self._written)
            assert self._predictor is not None
            rewards = self._predictor.forecast(features).mean()
            rewards = rewards + np.maximum(self._ceilings.log_admitted(features), -3.0)
            self.controller.train(self.fields, self._written, rewards)
        self._asked += 1
        return self._written

    def write(self, count: int) -> Array:
        """Specs that the controller draws, (count, fields)."""
        return self.controller.draw(self.fields, count, self.rng, self._absent)

    def _absent(self, rows: Array, index: int) -> npt.NDArray[np.bool_]:
        if self._presence is None:
            return np.zeros(len(rows), dtype=np.bool_)
        return self._presence.absent(rows, index)

    def _fresh(self, known: set[bytes], rows: Array) -> Array:
        assert self._presence is not None
        rows = self._presence.applied(rows)
        kept = {row.tobytes(): index for index, row in enumerate(rows)}
        return rows[sorted(index for key, index in kept.items() if key not in known)]

    def _worth(self, rows: Array, best: float, caution: int) -> Array:
        assert self._predictor is not None
        if not len(rows):
            return np.empty(0)
        features = self.fields.features(rows)
        worth = self._predictor.forecast(features).log_improvement(best)
        return worth + (1 + caution) * self._ceilings.log_admitted(features)

    # ---- one decision

    def decide(self, given: Mapping[str, Any], name: str, distribution: BaseDistribution) -> Any:
        """The controller's answer where one parameter is asked after the given answers."""
        if distribution.single():
            return _only(distribution)
        space = {key: one for key, one in self.space.items() if key in given} | {name: distribution}
        fields = Fields.of(space)
        self.controller.meet(fields)
        places = {
            index: field.place(given[field.name])
            for index, field in enumerate(fields.fields)
            if field.name in given
        }
        row = self.controller.draw(fields, 1, self.rng, lambda rows, index: np.isnan(rows[:, index]), places)
        return fields.fields[-1].value(float(row[0, -1]))


def _only(distribution: BaseDistribution) -> Any:
    return distribution.choices[0] if hasattr(distribution, "choices") else distribution.low  # type: ignore[attr-defined]
