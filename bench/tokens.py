"""A task of random tokens, whose data cost no time to speak of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rsi_ray.tasks.task import Batch
from search_spaces import Head


@dataclass(frozen=True, kw_only=True)
class TokensTask:
    """The next of tokens that are drawn alike.

    Attributes:
        classes: of tokens.
        length: of a sequence.
        holdout_size: sequences of the hold-out.
    """

    classes: int
    length: int
    holdout_size: int

    @property
    def heads(self) -> tuple[Head, ...]:
        """One dense head."""
        return (Head(name="tokens", classes=self.classes, length=self.length, dense=True),)

    @property
    def digest(self) -> str:
        """What the tokens depend on."""
        return repr(self)

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        """Sequences with their successors."""
        tokens = rng.integers(self.classes, size=(size, self.length + 1))
        return {"tokens": Batch(inputs=tokens[:, :-1], targets=tokens[:, 1:])}

    def holdout(self) -> dict[str, Batch]:
        """Sequences that are always the same."""
        return self.batch(np.random.default_rng(0), self.holdout_size)
