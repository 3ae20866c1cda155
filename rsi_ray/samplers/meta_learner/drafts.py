"""Drafts: rows of specs that could be proposed, near the best ones and anywhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rsi_ray.samplers.meta_learner.fields import Fields

Array = npt.NDArray[np.float64]
# fields of a mixed draft that are drawn anew, in the mean
REDRAWN = 1.5


def whole(fields: Fields, rows: Array, rng: np.random.Generator) -> Array:
    """Rows with a random place where something was absent."""
    absent = np.isnan(rows)
    return np.where(absent, fields.draw(rng, len(rows)), rows) if absent.any() else rows


def neighbours(fields: Fields, rows: Array, most: int, rng: np.random.Generator) -> Array:
    """Rows that differ from a whole one in one field, at most so many for each."""
    which, steps = fields.moves
    drawn = rng.random((len(rows), len(which))).argsort(axis=1)[:, :most].ravel()
    near = np.repeat(rows, min(most, len(which)), axis=0)
    at = (np.arange(len(near)), which[drawn])
    near[at] = fields.moved(near[at], which[drawn], steps[drawn], rng)
    return near


def mixed(fields: Fields, parents: Array, count: int, rng: np.random.Generator) -> Array:
    """Rows that take each field from one of two whole parents, and now and then from neither."""
    one, other = parents[rng.integers(len(parents), size=(2, count))]
    rows = np.where(rng.random(one.shape) < 0.5, one, other)
    anew = rng.random(one.shape) < REDRAWN / len(fields)
    return np.where(anew, fields.draw(rng, count), rows)
