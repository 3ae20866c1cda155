"""A Gaussian process over blocks of features: linear, quadratic and local effects, weighed by evidence."""

from __future__ import annotations

import math
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dtrtri

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Matrix = TypeVar("Matrix", Array, Floats)
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


class Kernel(NamedTuple, Generic[Matrix]):
    """Covariances, (rows, rows), with the inner products and the local part that they are made of."""

    whole: Matrix
    inner: Matrix
    local: Matrix


class Fit(NamedTuple):
    """What a process is conditioned on, in single precision, which is enough to compare drafts by.

    Attributes:
        scales: those that it was conditioned with.
        root: of the weight of each feature, (width,).
        rows: features times that, (rows, width).
        inverse: of the lower factor of the covariances, (rows, rows).
        solved: inverse of the covariances times the scores, (rows,).
    """

    scales: Scales
    root: Floats
    rows: Floats
    inverse: Floats
    solved: Floats


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

    def improve(self, x: Floats, y: Array, foreign: Array) -> None:
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

    def _gradient(self, x: Floats, y: Array, foreign: Array) -> Array:
        """Of the log evidence by the logarithms of the scales."""
        scales, diagonal = self.scales, np.diag_indices(len(y))
        rows = x * self._root(scales)
        kernel = kernel_of(scales, rows, rows)
        kernel.whole[diagonal] += scales.noise + scales.foreign * foreign + JITTER
        inverse = inverse_factor(kernel.whole)
        fitted = inverse.T @ (inverse @ y)
        pull = np.outer(fitted, fitted) - inverse.T @ inverse
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

    def _root(self, scales: Scales) -> Array:
        return np.asarray(np.sqrt(scales.weights)[self.blocks])

    def fit(self, x: Floats, y: Array, foreign: Array) -> None:
        """Condition on rows, as `improve` takes them."""
        scales = self.scales
        root = self._root(scales)
        rows = x * root
        whole = kernel_of(scales, rows, rows).whole
        whole[np.diag_indices(len(y))] += scales.noise + scales.foreign * foreign + JITTER
        inverse = inverse_factor(whole)
        solved = inverse.T @ (inverse @ y)
        single = (one.astype(np.float32) for one in (root, rows, inverse, solved))
        self._fit = Fit(scales, *single)

    def predict(self, x: Floats) -> tuple[Array, Array, float]:
        """Mean and its standard deviation, (rows,) each, and that of what is measured beside it."""
        scales, root, rows, inverse, solved = self._fit
        x = x * root
        between = kernel_of(scales, x, rows).whole
        own = np.einsum("ij,ij->i", x, x)
        before = scales.linear * own + scales.quadratic * own**2 + scales.local
        known = between @ inverse.T
        variance = np.maximum(before - np.einsum("ij,ij->i", known, known), JITTER)
        mean, doubt = between @ solved, np.sqrt(variance)
        return mean.astype(np.float64), doubt.astype(np.float64), math.sqrt(scales.noise)


def kernel_of(scales: Scales, a: Matrix, b: Matrix) -> Kernel[Matrix]:
    """Covariances of rows whose features are weighed already, (rows of a, rows of b)."""
    inner = a @ b.T
    apart = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b) - 2 * inner
    local = np.exp(-0.5 * scales.reach * np.maximum(apart, 0.0))
    whole = (scales.linear + scales.quadratic * inner) * inner + scales.local * local
    return Kernel(whole, inner, local)


def inverse_factor(covariances: Array) -> Array:
    """Inverse of the lower Cholesky factor.

    Raises:
        numpy.linalg.LinAlgError: they are no covariances.
    """
    inverse, _ = dtrtri(np.linalg.cholesky(covariances), lower=1)
    return np.asarray(inverse)
