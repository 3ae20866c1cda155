"""What is over the ceilings: learned from refused specs, though nobody says how far the rest is under."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from rsi_ray.samplers.meta_learner.process import Process

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
# the least that an admitted spec is under the ceilings, where the median of the refused is over by 1
MARGIN = 0.05
# admitted and refused specs, of each, that are looked at
FITTED = 60


class Ceilings:
    """A process of the logarithm of excess; that of an admitted spec is found by turns with the process.

    Args:
        blocks: the block of each feature, (width,).
    """

    def __init__(self, blocks: npt.NDArray[np.int64]) -> None:
        self._process = Process(blocks)
        self._under: dict[int, float] = {}
        self._known = False

    def learn(self, admitted: Floats, numbers: Sequence[int], refused: Floats, excess: Array) -> None:
        """Learn from the latest specs.

        Args:
            admitted: their features, (rows, width).
            numbers: of the admitted specs' trials.
            refused: their features, (rows, width).
            excess: how far each refused one was over, as a share of the ceiling.
        """
        if not len(refused):
            return
        admitted, numbers = admitted[-FITTED:], numbers[-FITTED:]
        over = np.log1p(np.minimum(excess, 1e6))
        over = over[-FITTED:] / max(float(np.median(over)), 1e-9)
        x = np.concatenate([admitted, refused[-FITTED:]])
        under = np.array([self._under.get(number, -1.0) for number in numbers])
        none = np.zeros(len(x))
        for _ in range(1 if self._known else 8):
            y = np.concatenate([under, over])
            self._process.improve(x, y, none)
            self._process.fit(x, y, none)
            if numbers:
                under = np.minimum(self._process.predict(admitted)[0], -MARGIN)
        self._under.update(zip(numbers, under.tolist(), strict=True))
        self._known = True

    def log_admitted(self, x: Floats) -> Array:
        """Logarithm of the probability that specs with these features are under every ceiling, (rows,)."""
        if not self._known:
            return np.zeros(len(x))
        mean, doubt, noise = self._process.predict(x)
        return np.asarray(log_ndtr(-mean / np.sqrt(doubt**2 + noise**2)))
