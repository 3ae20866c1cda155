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
    return np.where(np.isnan(rows), fields.draw(rng, len(rows)), rows)


def neighbours(fields: Fields, row: Array, most: int, rng: np.random.Generator) -> Array:
    """Rows that differ from a whole one in one field, at most so many."""
    changes = [field.others(place, rng) for field, place in zip(fields.fields, row.tolist(), strict=True)]
    which = np.repeat(np.arange(len(changes)), [len(one) for one in changes])
    places = np.concatenate(changes)
    if len(which) > most:
        drawn = rng.choice(len(which), most, replace=False)
        which, places = which[drawn], places[drawn]
    rows = np.repeat(row[None], len(which), axis=0)
    rows[np.arange(len(which)), which] = places
    return rows


def mixed(fields: Fields, parents: Array, count: int, rng: np.random.Generator) -> Array:
    """Rows that take each field from one of two whole parents, and now and then from neither."""
    one, other = parents[rng.integers(len(parents), size=(2, count))]
    rows = np.where(rng.random(one.shape) < 0.5, one, other)
    anew = rng.random(one.shape) < REDRAWN / len(fields)
    return np.where(anew, fields.draw(rng, count), rows)
