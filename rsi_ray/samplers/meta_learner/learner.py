"""The learner: it takes in what a study knows, proposes the next spec, and is carried to the next study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection

from rsi_ray.samplers.history import History
from rsi_ray.samplers.meta_learner.controller import Controller
from rsi_ray.samplers.meta_learner.evidence import Evidence, Rows
from rsi_ray.samplers.meta_learner.fields import Field, Fields
from rsi_ray.samplers.meta_learner.screen import Prediction, Screen
from rsi_ray.samplers.meta_learner.state import Remembered, State, as_json, from_json, read, write

Array = npt.NDArray[np.float64]
# candidates that the predictor starts with; until then the controller writes alone
STARTUP = 8
# drafts of the controller, and proposals until it is trained again
WRITTEN, SCHEDULE = 24, 4
# candidates that are carried to the next study: the best, and others from the best to the worst
BEST_CARRIED, CARRIED, REMEMBERED = 20, 40, 80


class MetaLearner:
    """A controller and a predictor, for one study at a time.

    Args:
        seed: of everything that is drawn.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._rng = np.random.default_rng(seed)
        self.controller = Controller(int(self._rng.integers(2**31)))
        self.space: dict[str, BaseDistribution] = {}
        self.fields = Fields(())
        self._carried = State(known={}, baseline=None, scales={}, space={}, memory=[])
        self._seen, self._young = -1, True
        self._looked_at: tuple[int, ...] = (0, 0, 0)
        self._rows = Rows(self.fields, [])
        self._screen: Screen | None = None
        self._written = np.empty((0, 0))
        self._evidence: Evidence | None = None

    def reseed(self) -> None:
        """Draw new seeds."""
        self._rng = np.random.default_rng()

    def learn(self, history: History, directions: Sequence[StudyDirection]) -> bool:
        """Take in what a study knows; whether that is enough for a proposal."""
        self._meet(history)
        known = len(history.complete) + len(self._rows.memory)
        if not len(self.fields) or known < STARTUP:
            return False
        if self._screen is None:
            self._screen = Screen(self.fields, self._carried.scales, self._rng)
        self._evidence = self._rows.evidence(history, directions)
        self._screen.learn(self._evidence)
        return True

    def _meet(self, history: History) -> None:
        """Look at what was asked since the last time; another space is learned anew."""
        kinds = (history.complete, history.pruned, history.refused)
        if len(history) == self._seen:
            return
        new = [one for kind, seen in zip(kinds, self._looked_at, strict=True) for one in kind[seen:]]
        # what another study has asked stands in for what this one has not yet shown
        young = len(history) < STARTUP
        asked = from_json(self._carried.space) if young else {} if self._young else dict(self.space)
        if young or self._young:
            new = [one for kind in kinds for one in kind]
        for trial in sorted(new, key=lambda one: one.number):
            asked.update(trial.distributions)
        self._young, self._seen = young, len(history)
        self._looked_at = tuple(len(kind) for kind in kinds)
        if asked == self.space:
            return
        if self._screen is not None:
            scales = {**self._carried.scales, **self._screen.predictor.scales()}
            self._carried = self._carried.model_copy(update={"scales": scales})
        self.space, self.fields, self._screen = asked, Fields.of(asked), None
        self.controller.meet(self.fields)
        self._rows = Rows(self.fields, self._carried.memory)
        self._written = self.fields.draw(self._rng, 0)

    def propose(
        self, number: int, running: Sequence[Mapping[str, Any]], caution: int
    ) -> tuple[dict[str, Any], Prediction | None]:
        """The best of many drafts, and what is expected of it; nothing where every draft is known.

        Args:
            number: of the trial.
            running: configurations that are being measured.
            caution: how many proposals were refused in a row.
        """
        if self._screen is None:
            return {}, None
        self._practise(number, self._screen)
        going = np.array([self.fields.row(params) for params in running]).reshape(-1, len(self.fields))
        found = self._screen.best_draft(number, self._written, going, caution)
        if found is None:
            return {}, None
        row, told = found
        return self.fields.params(row), told

    def _practise(self, number: int, screen: Screen) -> None:
        """Have the controller write specs; some trials later it is trained on what the predictor says."""
        if number % SCHEDULE == 0 or not len(self._written):
            self._written = self.controller.draw(self.fields, WRITTEN, self._rng, screen.presence.absent)
        elif number % SCHEDULE == SCHEDULE // 2:
            self.controller.train(self.fields, self._written, screen.reward(self._written))

    def decide(self, given: Mapping[str, Any], name: str, distribution: BaseDistribution) -> Any:
        """The controller's answer where one parameter is asked after some answers."""
        if distribution.single():
            choices = isinstance(distribution, CategoricalDistribution)
            return distribution.choices[0] if choices else distribution.low  # type: ignore[attr-defined]
        asked = {key: one for key, one in self.space.items() if key in given and key != name}
        fields = Fields.of({**asked, name: distribution})
        self.controller.meet(fields)
        known = [field for field in fields.fields if field.name != name]
        places = {index: field.place(given[field.name]) for index, field in enumerate(known)}
        return fields.fields[-1].value(self.controller.decide(fields, places, self._rng))

    def save(self, path: Path) -> None:
        """Write what was learned.

        Raises:
            OSError: it can't be written.
        """
        scales = self._screen.predictor.scales() if self._screen else {}
        known = {name: field.distribution for name, field in self.controller.known.items()}
        state = State(
            known=as_json(known),
            baseline=self.controller.baseline,
            scales={**self._carried.scales, **scales},
            space=as_json(self.space or from_json(self._carried.space)),
            memory=[*self._worth_carrying(), *self._carried.memory][:REMEMBERED],
        )
        write(path, state, self.controller.tensors())

    def _worth_carrying(self) -> list[Remembered]:
        if self._evidence is None:
            return []
        own = len(self._evidence.remembered)
        rows, scores = self._evidence.measured, self._evidence.scores[own:]
        order = np.argsort(-scores, kind="stable")
        spread = np.linspace(0, max(len(order) - 1, 0), CARRIED - BEST_CARRIED).astype(np.int64)
        carried = dict.fromkeys([*order[:BEST_CARRIED].tolist(), *order[spread[: len(order)]].tolist()])
        return [Remembered(params=self.fields.params(rows[i]), standing=float(scores[i])) for i in carried]

    def load(self, path: Path) -> None:
        """Start from what was learned elsewhere, in this space or another one.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no state of a learner; the message is one line.
        """
        self._carried, weights = read(path)
        known = {name: Field(name, one) for name, one in from_json(self._carried.known).items()}
        self.controller.load(known, weights, self._carried.baseline)
        self._seen, self._young, self.space = -1, True, {}
        self._screen = self._evidence = None
