"""A domain of problems with one right answer each, split into training, hold-out and a sealed part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsi_ray.tasks.samples import held_rows
from rsi_ray.tasks.task import Batch
from search_spaces.transformer import Head


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ProblemDomain:
    """A domain of distinct problems; the model answers at the last position of a problem.

    Attributes:
        head: not dense; its classes are the possible answers.
        problems: ASCII, uint8, shape (N, length), every row different.
        answers: class ids, int64, shape (N,).
        holdout_size: the first so many problems are the hold-out, as many after them are sealed, the others
            are for training.
    """

    head: Head
    problems: NDArray[np.uint8]
    answers: NDArray[np.int64]
    holdout_size: int

    @property
    def digest(self) -> str:
        """SHA-256 of the problems, the answers and the split, in hex."""
        digest = hashlib.sha256(self.problems.tobytes())
        digest.update(self.answers.astype("<i8").tobytes())
        digest.update(str((self.problems.shape, self.holdout_size, held_rows(self.holdout_size))).encode())
        return digest.hexdigest()

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw `size` training problems: inputs (size, length), targets (size,)."""
        return self._rows(self.pick(rng, size))

    def pick(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Choose the rows of `size` training problems."""
        return rng.integers(held_rows(self.holdout_size), len(self.problems), size=size)

    def holdout(self) -> Batch:
        """Return the hold-out problems, in the shapes of `draw`."""
        return self._rows(np.arange(self.holdout_size))

    def sealed(self) -> Batch:
        """Return the sealed problems, in the shapes of `draw`."""
        return self._rows(np.arange(self.holdout_size, held_rows(self.holdout_size)))

    def _rows(self, rows: NDArray[np.int64]) -> Batch:
        return Batch(inputs=self.problems[rows].astype(np.int64), targets=self.answers[rows])


def problem_domain(
    head: Head,
    problems: NDArray[np.uint8],
    answers: NDArray[np.int64],
    *,
    holdout_size: int,
    rng: np.random.Generator,
) -> ProblemDomain:
    """Drop repeated problems, shuffle the rest and split off the hold-out and the sealed part.

    Raises:
        ValueError: fewer distinct problems than three times the hold-out are left.
    """
    rows = np.ascontiguousarray(problems).view(f"V{problems.shape[1]}").ravel()
    distinct = np.unique(rows, return_index=True)[1]
    if len(distinct) < held_rows(holdout_size) + holdout_size:
        raise ValueError(
            f"{head.name}: {len(distinct)} distinct problems are too few for a hold-out of {holdout_size}, "
            "as many sealed and as many to train on"
        )
    order = rng.permutation(distinct)
    return ProblemDomain(
        head=head, problems=problems[order], answers=answers[order], holdout_size=holdout_size
    )
