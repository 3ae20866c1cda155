"""What a candidate learns from and is scored on: heads, training batches, a hold-out and a sealed part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64] | NDArray[np.float32]


class TaskHead(Protocol):
    """What a model answers by; every search space declares heads of its own kind."""

    @property
    def name(self) -> str:
        """The domain's name, a Python identifier."""
        ...


HeadT = TypeVar("HeadT", bound=TaskHead)
HeadT_co = TypeVar("HeadT_co", bound=TaskHead, covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Samples of one head.

    Attributes:
        inputs: what the head reads, shape (B, *sample shape): token ids as int64, images and table rows as
            float32.
        targets: the right answers. Class ids as int64 are learned by cross-entropy and scored by accuracy:
            (B, L) for a dense head, (B,) for any other. Numbers as float32, (B, outputs), are learned by
            mean squared error and scored by R^2; they are standardised, so that all weigh alike.
    """

    inputs: Array
    targets: Array


class Domain(Protocol[HeadT_co]):
    """One capability: a head's data, split into training, hold-out and sealed part."""

    @property
    def head(self) -> HeadT_co:
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
        """Return every hold-out sample, which a search selects by; none of them can be drawn."""
        ...

    def sealed(self) -> Batch:
        """Return as many samples again for the evaluator alone: none is drawn, none is in the hold-out."""
        ...


class Task(Protocol):
    """Several domains learned by one model; the score is the mean of the domains' scores."""

    @property
    def heads(self) -> tuple[TaskHead, ...]:
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


def sealed_part(task: Task) -> tuple[Mapping[str, Batch], bool]:
    """Return what an evaluator scores on, and whether neither training nor search has ever seen it.

    It is what the task's method `sealed` returns, `holdout_size` samples of every head; one of the user's own
    may have none, and is scored on its hold-out.
    """
    sealed: Callable[[], Mapping[str, Batch]] | None = getattr(task, "sealed", None)
    return (task.holdout(), False) if sealed is None else (sealed(), True)


class DomainTask(Generic[HeadT]):
    """A task that is put together from its domains."""

    def __init__(self, domains: Sequence[Domain[HeadT]], *, holdout_size: int) -> None:
        """Take domains whose hold-outs and sealed parts have `holdout_size` samples each."""
        self._domains = tuple(domains)
        self.heads: tuple[HeadT, ...] = tuple(domain.head for domain in self._domains)
        self.holdout_size = holdout_size
        digests = "".join(domain.digest for domain in self._domains)
        self.digest = hashlib.sha256(digests.encode()).hexdigest()

    @property
    def domains(self) -> tuple[Domain[HeadT], ...]:
        """What it is put together from, in the order in which they draw."""
        return self._domains

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        """Draw `size` training samples for every head."""
        return {domain.head.name: domain.draw(rng, size) for domain in self._domains}

    def holdout(self) -> dict[str, Batch]:
        """Return the hold-out of every head, `holdout_size` samples each."""
        return {domain.head.name: domain.holdout() for domain in self._domains}

    def sealed(self) -> dict[str, Batch]:
        """Return the sealed part of every head, `holdout_size` samples each."""
        return {domain.head.name: domain.sealed() for domain in self._domains}
