"""What a candidate learns from and is scored on: heads, training batches and a sealed hold-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from search_spaces.transformer import Head


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Samples of one head.

    Attributes:
        inputs: token ids, int64, shape (B, L).
        targets: the right answers as class ids, int64: (B, L) for a dense head, (B,) for any other.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]


class Domain(Protocol):
    """One capability: a head's data, split into training and hold-out."""

    @property
    def head(self) -> Head:
        """The head that answers this domain; its name is the domain's."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of everything that training and evaluation can draw, in hex."""
        ...

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw `size` training samples, with replacement."""
        ...

    def holdout(self) -> Batch:
        """Return every hold-out sample; none of them can be drawn."""
        ...


class Task(Protocol):
    """Several domains learned by one model; the score is the mean of the domains' scores."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """One head per domain."""
        ...

    @property
    def holdout_size(self) -> int:
        """Hold-out samples per head, the same for all: one evaluation is this many forward passes."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the data, in hex: a replay on other data is noticed."""
        ...

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        """Draw `size` training samples for every head."""
        ...

    def holdout(self) -> dict[str, Batch]:
        """Return the hold-out of every head."""
        ...
