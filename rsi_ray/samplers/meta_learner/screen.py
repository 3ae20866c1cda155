"""The screen: of many drafts, the one that is worth most by the predictor and the ceilings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from rsi_ray.samplers.meta_learner.ceilings import Ceilings
from rsi_ray.samplers.meta_learner.drafts import mixed, neighbours, whole
from rsi_ray.samplers.meta_learner.evidence import Evidence
from rsi_ray.samplers.meta_learner.fields import Fields
from rsi_ray.samplers.meta_learner.predictor import Forecast, Predictor
from rsi_ray.samplers.meta_learner.presence import Presence

Array = npt.NDArray[np.float64]
# drafts anywhere, mixed of the best, and near each of the best
ANYWHERE, MIXED, NEAR, PARENTS = 32, 32, 24, 5
# then rounds of drafts near those that are worth most
ROUNDS, CLIMBERS, CLOSE = 2, 4, 20
# what proposals are chosen by, in turn: see `Screen._worth`
MEASURED, EXPECTED, DRAWN = range(3)


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


class Screen:
    """What was learned of one space.

    Args:
        fields: of the space.
        scales: of the predictor for another space, to start from.
        rng: of all draws.
    """

    def __init__(self, fields: Fields, scales: Mapping[str, float], rng: np.random.Generator) -> None:
        self.fields, self._rng = fields, rng
        self.predictor = Predictor(fields, scales, rng)
        self._ceilings = Ceilings(fields.blocks)
        self._foretold: dict[int, Forecast] = {}
        self.presence = Presence(gates=(), choices=fields.choices)
        self._evidence: Evidence
        self._unexplained = 0

    def learn(self, evidence: Evidence) -> None:
        """Train everything on what is known."""
        self._evidence = evidence
        own = evidence.scores[len(evidence.remembered) :]
        for index, number in enumerate(evidence.numbers):
            if number in self._foretold:
                others = np.concatenate([own[:index], own[index + 1 :]])
                self.predictor.judge(self._foretold.pop(number), own[index], others)
        everything = evidence.everything
        unexplained = self.presence.unexplained(everything)
        if unexplained > self._unexplained:
            self.presence = Presence.of(everything, self.fields.choices)
            unexplained = self.presence.unexplained(everything)
        self._unexplained = unexplained
        foreign = np.arange(len(evidence.features)) < len(evidence.remembered)
        self.predictor.learn(evidence.features, evidence.scores, foreign)
        admitted = evidence.features[len(evidence.remembered) :]
        self._ceilings.learn(admitted, evidence.numbers, evidence.refused_features, evidence.excess)

    def best_draft(
        self, number: int, more: Array, running: Array, caution: int
    ) -> tuple[Array, Prediction] | None:
        """The draft that is worth most of those that are not known, and what is expected of it; else None.

        Args:
            number: of the trial that it is for.
            more: drafts beside the screen's own, (rows, fields).
            running: rows that are being measured, (rows, fields).
            caution: how many proposals were refused in a row.
        """
        taken = {row.tobytes() for row in running}
        drafts = self._fresh(np.concatenate([more, self._drafts()]), taken)
        worth_of = partial(self._worth, turn=self._turn(number), caution=caution)
        worth = worth_of(drafts)
        for _ in range(ROUNDS):
            top = whole(self.fields, drafts[np.argsort(-worth)[:CLIMBERS]], self._rng)
            close = self._fresh(neighbours(self.fields, top, CLOSE, self._rng), taken)
            drafts = np.concatenate([drafts, close])
            worth = np.concatenate([worth, worth_of(close)])
        if not len(drafts):
            return None
        chosen: Array = drafts[int(worth.argmax())]
        return chosen, self._foretell(number, chosen)

    def _foretell(self, number: int, row: Array) -> Prediction:
        """What is expected of one row, (fields,); it is held against what is measured."""
        features = self.fields.features(row[None])
        told = self.predictor.forecast(features)
        self._foretold[number] = told
        admitted = np.exp(self._ceilings.log_admitted(features))
        return Prediction(
            mean=float(told.mean()[0]), std=float(told.spread()[0]), admitted=float(admitted[0])
        )

    def reward(self, rows: Array) -> Array:
        """What the controller is rewarded with for some rows: their score, less where they seem refused."""
        features = self.fields.features(rows)
        admitted = self._ceilings.log_admitted(features)
        return self.predictor.forecast(features).mean() + np.maximum(admitted, -3.0)

    def _drafts(self) -> Array:
        order = np.argsort(-self._evidence.scores, kind="stable")
        best = whole(self.fields, self._evidence.scored[order[: 2 * PARENTS]], self._rng)
        return np.concatenate(
            [
                self.fields.draw(self._rng, ANYWHERE),
                mixed(self.fields, best, MIXED, self._rng),
                neighbours(self.fields, best[:PARENTS], NEAR, self._rng),
            ]
        )

    def _fresh(self, rows: Array, taken: set[bytes]) -> Array:
        """The rows as they would be asked, those left out that are taken; they are taken from then on."""
        rows = self.presence.applied(rows)
        kept = []
        for index, row in enumerate(rows):
            key = row.tobytes()
            if key not in taken and key not in self._evidence.known:
                taken.add(key)
                kept.append(index)
        return rows[kept]

    def _turn(self, number: int) -> int:
        """What a proposal is chosen by: under ceilings by no draw, which would keep too far from them."""
        return number % 2 if len(self._evidence.refused) else number % 3

    def _worth(self, rows: Array, *, turn: int, caution: int) -> Array:
        """By the improvement that is measured or expected, or by a draw, which goes to more places."""
        if not len(rows):
            return np.empty(0)
        features = self.fields.features(rows)
        told = self.predictor.forecast(features)
        if turn == DRAWN:
            return told.drawn(self._rng)
        gain = told.log_improvement(self._evidence.best, measured=turn == MEASURED)
        return gain + (1 + caution) * self._ceilings.log_admitted(features)
