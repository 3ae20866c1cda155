"""Small networks that are trained to order candidates: the predictor's members that see every measured one.

Source: Burges et al., "Learning to Rank using Gradient Descent", ICML 2005 (the loss of pairs).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
MEMBERS, HIDDEN = 4, 24
BATCH = 48
RATE, DECAY = 0.01, 0.01


class RankNets:
    """An ensemble of networks of one hidden layer, each trained on its own draws of pairs.

    Args:
        width: of the features.
        rng: of weights and draws.
    """

    def __init__(self, width: int, rng: np.random.Generator) -> None:
        self._rng = rng
        weights = (
            rng.normal(size=(MEMBERS, width, HIDDEN)) / np.sqrt(width),
            rng.normal(size=(MEMBERS, 1, HIDDEN)) * 0.1,
            rng.normal(size=(MEMBERS, HIDDEN, 1)) / np.sqrt(HIDDEN),
        )
        self.weights = [one.astype(np.float32) for one in weights]
        self._first = [np.zeros_like(one) for one in self.weights]
        self._second = [np.zeros_like(one) for one in self.weights]
        self._steps = 0

    def improve(self, x: Floats, y: Array, steps: int) -> None:
        """Steps of Adam down the loss of all pairs of a batch, another one for each member.

        Args:
            x: features of every measured candidate, (rows, width).
            y: their scores, (rows,).
            steps: how many.
        """
        size = min(BATCH, len(y))
        for _ in range(steps):
            drawn = self._rng.integers(len(y), size=(MEMBERS, size))
            self._step(x[drawn], y[drawn])

    def _step(self, x: Floats, y: Array) -> None:
        first, bias, second = self.weights
        hidden = np.tanh(x @ first + bias)
        scores = (hidden @ second)[..., 0]
        above = np.sign(y[:, :, None] - y[:, None, :]).astype(np.float32)
        # of log(1 + exp(-difference)), where a pair is ordered
        pull = -above / (1 + np.exp(above * (scores[:, :, None] - scores[:, None, :])))
        by_score = (pull.sum(axis=2) / x.shape[1])[..., None]
        by_hidden = by_score * second.transpose(0, 2, 1) * (1 - hidden**2)
        gradients = [
            x.transpose(0, 2, 1) @ by_hidden,
            by_hidden.sum(axis=1, keepdims=True),
            hidden.transpose(0, 2, 1) @ by_score,
        ]
        self._steps += 1
        for one, gradient, mean, square in zip(
            self.weights, gradients, self._first, self._second, strict=True
        ):
            mean += 0.1 * (gradient - mean)
            square += 0.01 * (gradient**2 - square)
            size = np.sqrt(square / (1 - 0.99**self._steps)) + 1e-6
            one -= RATE * (mean / (1 - 0.9**self._steps) / size + DECAY * one)

    def predict(self, x: Floats) -> Array:
        """Score of each member, on a scale of its own, (members, rows)."""
        first, bias, second = self.weights
        return (np.tanh(x @ first + bias) @ second)[..., 0].astype(np.float64)
