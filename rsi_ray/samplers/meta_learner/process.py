"""A Gaussian process over blocks of features: linear, quadratic and local effects, weighed by evidence."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular

Array = npt.NDArray[np.float64]
# of linear, quadratic and local effects, of what none of them says, of the reach of the local ones, and of
# the difference between this study and another one that is remembered
PRIOR = (0.5, 0.15, 0.35, 0.02, 1.0, 0.3)
SPREAD = (1.0, 1.0, 1.0, 1.0, 0.7, 1.0)
RATE, MOMENTUM, CURVATURE = 0.1, 0.8, 0.95
JITTER = 1e-6


class Scales(NamedTuple):
    """What a process is made of, all above 0; the weights are of the blocks, (blocks,)."""

    weights: Array
    linear: float
    quadratic: float
    local: float
    noise: float
    reach: float
    foreign: float


class Kernel(NamedTuple):
    """Covariances, (rows, rows), with the inner products and the local part that they are made of."""

    whole: Array
    inner: Array
    local: Array


class Process:
    """Scales are found by gradient steps up the posterior, a few for each new row.

    Args:
        blocks: the block of each feature, (width,).
        prior: of all scales but the weights.
    """

    def __init__(self, blocks: npt.NDArray[np.int64], prior: tuple[float, ...] = PRIOR) -> None:
        self.blocks, self._count = blocks, int(blocks[-1]) + 1
        self._mean = np.concatenate([np.full(self._count, -math.log(self._count)), np.log(prior)])
        self._spread = np.concatenate([np.ones(self._count), SPREAD])
        self.log_scales = self._mean.copy()
        self._first, self._second = np.zeros_like(self._mean), np.zeros_like(self._mean)
        self._steps = 0

    @property
    def scales(self) -> Scales:
        """Those of now."""
        whole = np.exp(self.log_scales)
        return Scales(whole[: self._count], *(float(one) for one in whole[self._count :]))

    def improve(self, x: Array, y: Array, foreign: Array) -> None:
        """One step of Adam.

        Args:
            x: features, (rows, width).
            y: standard normal scores, (rows,).
            foreign: 1 for rows of another study, (rows,).
        """
        gradient = self._gradient(x, y, foreign) - (self.log_scales - self._mean) / self._spread**2
        self._steps += 1
        self._first = MOMENTUM * self._first + (1 - MOMENTUM) * gradient
        self._second = CURVATURE * self._second + (1 - CURVATURE) * gradient**2
        first = self._first / (1 - MOMENTUM**self._steps)
        second = self._second / (1 - CURVATURE**self._steps)
        self.log_scales = self.log_scales + RATE * first / (np.sqrt(second) + 1e-3)

    def _gradient(self, x: Array, y: Array, foreign: Array) -> Array:
        """Of the log evidence by the logarithms of the scales."""
        scales, diagonal = self.scales, np.diag_indices(len(y))
        kernel = self._kernel(scales, x, x)
        kernel.whole[diagonal] += scales.noise + scales.foreign * foreign + JITTER
        factor = cho_factor(kernel.whole, lower=True, check_finite=False)
        fitted = cho_solve(factor, y, check_finite=False)
        pull = np.outer(fitted, fitted) - cho_solve(factor, np.eye(len(y)), check_finite=False)
        local = pull * kernel.local
        by_inner = pull * (scales.linear + 2 * scales.quadratic * kernel.inner)
        by_inner += scales.reach * scales.local * local
        by_inner[diagonal] -= scales.reach * scales.local * local.sum(axis=1)
        by_feature = ((by_inner @ x) * x).sum(axis=0)
        own = np.diag(kernel.inner)
        apart = own[:, None] + own - 2 * kernel.inner
        others = [
            scales.linear * (pull * kernel.inner).sum(),
            scales.quadratic * (pull * kernel.inner**2).sum(),
            scales.local * local.sum(),
            scales.noise * pull[diagonal].sum(),
            -0.5 * scales.reach * scales.local * (local * apart).sum(),
            scales.foreign * (pull[diagonal] @ foreign),
        ]
        weights = scales.weights * np.bincount(self.blocks, by_feature, minlength=self._count)
        return 0.5 * np.concatenate([weights, others])

    def _kernel(self, scales: Scales, a: Array, b: Array) -> Kernel:
        root = np.sqrt(scales.weights)[self.blocks]
        a, b = a * root, b * root
        inner = a @ b.T
        apart = np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * inner, 0.0)
        local = np.exp(-0.5 * scales.reach * apart)
        whole = scales.linear * inner + scales.quadratic * inner**2 + scales.local * local
        return Kernel(whole, inner, local)

    def fit(self, x: Array, y: Array, foreign: Array) -> None:
        """Condition on rows, as `improve` takes them."""
        self._fitted, self._x = self.scales, x
        whole = self._kernel(self._fitted, x, x).whole
        whole[np.diag_indices(len(y))] += self._fitted.noise + self._fitted.foreign * foreign + JITTER
        self._factor = cho_factor(whole, lower=True, check_finite=False)
        self._solved = cho_solve(self._factor, y, check_finite=False)

    def predict(self, x: Array) -> tuple[Array, Array, float]:
        """Mean and its standard deviation, (rows,) each, and that of what is measured beside it."""
        scales = self._fitted
        between = self._kernel(scales, x, self._x).whole
        own = x**2 @ scales.weights[self.blocks]
        before = scales.linear * own + scales.quadratic * own**2 + scales.local
        known = solve_triangular(self._factor[0], between.T, lower=True, check_finite=False)
        variance = np.maximum(before - (known**2).sum(axis=0), JITTER)
        return between @ self._solved, np.sqrt(variance), math.sqrt(scales.noise)
