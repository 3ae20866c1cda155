"""The domain `reasoning`: nested list operations on digits, after ListOps (Nangia and Bowman, 2018)."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from rsi_ray.tasks.problems import ProblemDomain, problem_domain
from search_spaces.transformer import Head

Shape = tuple[int, ...]
"""Arguments of the outer list: 0 for a digit, k for an inner list of k digits."""

OPERATIONS = b"^_<>"
"""Largest, smallest, first, last."""

PAD = 0


def reasoning(*, length: int, problems: int, holdout_size: int, rng: np.random.Generator) -> ProblemDomain:
    """Find the digit that a nested list such as `(^3(_472)5)` comes to.

    Args:
        length: bytes per problem, padded on the left; shapes that need more are left out.
        problems: how many are generated, before repeats are dropped.
        holdout_size: hold-out samples, and as many that are sealed.
        rng: the source of operations and digits.

    Raises:
        ValueError: no shape fits in `length`, or too few distinct problems for the hold-out.
    """
    shapes = [shape for shape in _shapes() if _width(shape) <= length]
    if not shapes:
        raise ValueError(f"reasoning: no list fits in {length} bytes")
    each = -(-problems // len(shapes))
    parts = [_lists(rng, shape, each) for shape in shapes]
    texts = np.concatenate([_padded(text, length) for text, _ in parts])
    values = np.concatenate([value for _, value in parts])
    head = Head(name="reasoning", classes=10, length=length, dense=False)
    return problem_domain(head, texts, values, holdout_size=holdout_size, rng=rng)


def _shapes() -> list[Shape]:
    """List every shape of two or three arguments, each a digit or a list of two or three digits."""
    return [shape for arity in (2, 3) for shape in product((0, 2, 3), repeat=arity)]


def _width(shape: Shape) -> int:
    return 3 + sum(inner + 3 if inner else 1 for inner in shape)


def _lists(rng: np.random.Generator, shape: Shape, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Write `count` lists of one shape: text (count, width) and value (count,)."""
    arguments = [_lists(rng, (0,) * inner, count) if inner else _digits(rng, count) for inner in shape]
    operation = rng.integers(len(OPERATIONS), size=count)
    opening, closing = (np.full((count, 1), ord(bracket), dtype=np.uint8) for bracket in "()")
    symbol = np.frombuffer(OPERATIONS, dtype=np.uint8)[operation][:, None]
    text = np.concatenate([opening, symbol, *(text for text, _ in arguments), closing], axis=1)
    return text, _apply(operation, np.stack([value for _, value in arguments], axis=1))


def _digits(rng: np.random.Generator, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    values = rng.integers(10, size=count)
    return (values + ord("0")).astype(np.uint8)[:, None], values


def _apply(operation: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Apply to each row of `values` (count, k) the operation with that row's index."""
    return np.choose(operation, (values.max(axis=1), values.min(axis=1), values[:, 0], values[:, -1]))


def _padded(text: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    return np.pad(text, ((0, 0), (length - text.shape[1], 0)), constant_values=PAD)
