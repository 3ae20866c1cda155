"""The performance predictor: an ensemble whose members count by how well they foretold what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from rsi_ray.samplers.meta_learner.fields import Fields
from rsi_ray.samplers.meta_learner.process import PRIOR, Process
from rsi_ray.samplers.meta_learner.rank_net import RankNets

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
# mostly smooth effects of single choices; mostly what near candidates have in common
PRIORS = (PRIOR, (0.2, 0.05, 0.75, 0.1, 4.0, 0.3))
# losses of the members before any: smooth effects are most likely, and networks need many rows
HANDICAPS = (0.0, 1.5, 1.5)
# rows that a process is fitted on: a fit takes time as the cube of them
FITTED = 112
# steps on a new space, and for each new row while there are few; then one process takes one, by turns
FIRST_STEPS, STEPS, FEW_ROWS = 20, 3, 40
NET_STEPS = 3
FORGOTTEN = 0.97


class Forecast(NamedTuple):
    """What each member expects of some candidates, in standard normal quantiles of rank.

    Attributes:
        means: (members, rows).
        doubts: standard deviations of what is expected, (members, rows).
        noises: of what a candidate is beside what can be expected, (members, rows).
        weights: of the members, 1 together.
    """

    means: Array
    doubts: Array
    noises: Array
    weights: Array

    @property
    def spreads(self) -> Array:
        """Standard deviations of what would be measured, (members, rows)."""
        return np.sqrt(self.doubts**2 + self.noises**2)

    def mean(self) -> Array:
        """Of the mixture, (rows,)."""
        return np.asarray(self.weights @ self.means)

    def spread(self) -> Array:
        """Of the mixture, (rows,)."""
        second = self.weights @ (self.spreads**2 + self.means**2)
        return np.sqrt(np.maximum(second - self.mean() ** 2, 1e-12))

    def drawn(self, rng: np.random.Generator) -> Array:
        """A draw of what would be measured of each candidate, by one member, drawn as it counts, (rows,)."""
        member = rng.choice(len(self.weights), p=self.weights)
        noise = rng.normal(size=self.means.shape[1])
        return np.asarray(self.means[member] + self.spreads[member] * noise)

    def log_improvement(self, best: float, *, measured: bool) -> Array:
        """Logarithm of the improvement on the best that is expected of each candidate, (rows,).

        Args:
            best: score of the best.
            measured: of what would be measured, which keeps to where the best are; else of what can be
                expected, which goes to where little is known.
        """
        spreads = self.spreads if measured else self.doubts
        each = log_expected((self.means - best) / spreads) + np.log(spreads)
        most = each.max(axis=0)
        return np.asarray(most + np.log(self.weights @ np.exp(each - most)))


class Predictor:
    """Gaussian processes of several priors and an ensemble of rank networks.

    Args:
        fields: of the space.
        scales: logarithms of the processes' scales of another space by their labels, to start from.
        rng: of the networks.
    """

    def __init__(self, fields: Fields, scales: Mapping[str, float], rng: np.random.Generator) -> None:
        self.processes = [Process(fields.blocks, prior) for prior in PRIORS]
        self.nets = RankNets(len(fields.blocks), rng)
        self._labels = fields.labels
        for index, process in enumerate(self.processes):
            for place, label in enumerate(self._names(index)):
                process.log_scales[place] = scales.get(label, process.log_scales[place])
        self._losses = np.array(HANDICAPS)
        self._line, self._residual = (0.0, 1.0), 1.0
        self._new, self._turn = True, 0

    def _names(self, index: int) -> list[str]:
        return [f"{index}/{label}" for label in (*self._labels, *SCALES)]

    def scales(self) -> dict[str, float]:
        """Logarithms of the processes' scales by their labels."""
        return {
            label: float(value)
            for index, process in enumerate(self.processes)
            for label, value in zip(self._names(index), process.log_scales, strict=True)
        }

    def learn(self, x: Floats, y: Array, foreign: npt.NDArray[np.bool_]) -> None:
        """Train all members.

        Args:
            x: features of every measured candidate, (rows, width).
            y: their quantiles, (rows,).
            foreign: which are of another study, (rows,).
        """
        kept = fitted(y)
        apart = foreign[kept].astype(np.float64)
        few = STEPS if len(kept) < FEW_ROWS else 0
        self._turn = (self._turn + 1) % len(self.processes)
        for index, process in enumerate(self.processes):
            steps = FIRST_STEPS if self._new else few or int(index == self._turn)
            for _ in range(steps):
                process.improve(x[kept], y[kept], apart)
            process.fit(x[kept], y[kept], apart)
        self.nets.improve(x, y, 10 * NET_STEPS if self._new else NET_STEPS)
        told = self.nets.predict(x[kept]).mean(axis=0)
        mean = float(y[kept].mean())
        slope = float((told - told.mean()) @ (y[kept] - mean) / (len(kept) * told.var() + 1e-9))
        self._line = (mean - slope * float(told.mean()), slope if len(kept) > 2 else 0.0)
        self._new = False

    def forecast(self, x: Floats) -> Forecast:
        """What is expected of candidates with these features, (rows, width)."""
        expected = [process.predict(x) for process in self.processes]
        members = self._line[0] + self._line[1] * self.nets.predict(x)
        expected.append((members.mean(axis=0), members.std(axis=0) + 1e-3, self._residual))
        means, doubts, noises = zip(*expected, strict=True)
        noise = np.repeat(np.array(noises)[:, None], len(x), axis=1)
        return Forecast(np.stack(means), np.stack(doubts), noise, self.weights())

    def weights(self) -> Array:
        """How much each member counts: e to the power of its loss, negative."""
        weights = np.exp(self._losses.min() - self._losses)
        return np.asarray(weights / weights.sum())

    def judge(self, told: Forecast, measured: float, others: Array) -> None:
        """Count a candidate's pairs with all others against what each member had foretold of it alone."""
        if not len(others):
            return
        ahead = np.where(measured > others, 1.0, -1.0)
        odds = ahead * (told.means - others) / told.spreads
        self._losses = FORGOTTEN * self._losses - log_ndtr(odds).mean(axis=1)
        self._residual = float(np.sqrt(0.9 * self._residual**2 + 0.1 * (measured - told.means[-1, 0]) ** 2))


SCALES = ("linear", "quadratic", "local", "noise", "reach", "foreign")


def fitted(y: Array) -> npt.NDArray[np.int64]:
    """The rows that a process is fitted on: the best and the latest."""
    best = np.argsort(-y, kind="stable")[: FITTED // 2]
    rest = np.setdiff1d(np.arange(len(y)), best)
    return np.sort(np.concatenate([best, rest[-(FITTED - len(best)) :]]))


def log_expected(gap: Array) -> Array:
    """Logarithm of the expected excess of a standard normal over a bound, by minus the bound."""
    density = -0.5 * gap**2 - 0.5 * np.log(2 * np.pi)
    excess = np.exp(density) + gap * np.exp(log_ndtr(gap))
    # far below, where the difference of the two is lost
    tail = density - 2 * np.log(np.maximum(-gap, 1.0))
    return np.asarray(np.where(gap > -5, np.log(np.maximum(excess, 1e-300)), tail))
