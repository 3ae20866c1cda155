"""The built-in task: four capability domains from data that every Python installation carries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from rsi_ray.tasks.code_generation import code_generation
from rsi_ray.tasks.language import language
from rsi_ray.tasks.reasoning import reasoning
from rsi_ray.tasks.strategic_planning import strategic_planning
from rsi_ray.tasks.task import Batch, Domain
from search_spaces.transformer import Head


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltInOptions:
    """How the built-in data is cut and generated.

    Attributes:
        text_length: bytes per sample of language and code_generation.
        code_bytes: standard library source that is kept, at most.
        list_length: bytes per problem of reasoning.
        maze_side: cells per row and per column of strategic_planning's mazes.
        problems: problems generated per domain, before unfit ones are dropped.
        holdout_size: hold-out samples per domain.
        seed: of the generated problems; the same seed gives the same data.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    text_length: int = 16
    code_bytes: int = 1_000_000
    list_length: int = 15
    maze_side: int = 4
    problems: int = 40_000
    holdout_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = _RANGES[field.name]
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{field.name} must be a whole number from {low} to {high}, not {value!r}")


_RANGES = {
    "text_length": (1, 4096),
    "code_bytes": (10_000, 100_000_000),
    "list_length": (5, 4096),
    "maze_side": (2, 11),  # Distances fit in an int8.
    "problems": (100, 10_000_000),
    "holdout_size": (1, 100_000),
    "seed": (0, 2**63 - 1),
}


class BuiltInTask:
    """Language, code generation, reasoning and strategic planning, each with its own hold-out.

    Build it with `built_in_task`, which keeps one per process.
    """

    def __init__(self, options: BuiltInOptions) -> None:
        """Prepare all data, in well under a second at the default options.

        Raises:
            ValueError: there is too little data for the hold-out that the options ask for.
        """
        self._domains = _domains(options)
        self.heads: tuple[Head, ...] = tuple(domain.head for domain in self._domains)
        self.holdout_size = options.holdout_size
        digests = "".join(domain.digest for domain in self._domains)
        self.digest = hashlib.sha256(digests.encode()).hexdigest()

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        """Draw `size` training samples for every head."""
        return {domain.head.name: domain.draw(rng, size) for domain in self._domains}

    def holdout(self) -> dict[str, Batch]:
        """Return the hold-out of every head, `holdout_size` samples each."""
        return {domain.head.name: domain.holdout() for domain in self._domains}


@lru_cache(maxsize=2)
def built_in_task(options: BuiltInOptions) -> BuiltInTask:
    """Return the task with these options, prepared once per process.

    Raises:
        ValueError: there is too little data for the hold-out that the options ask for.
    """
    return BuiltInTask(options)


def _domains(options: BuiltInOptions) -> tuple[Domain, ...]:
    holdout_size, length = options.holdout_size, options.text_length
    # One stream per domain: a longer list of one must not change the problems of the other.
    lists, mazes = np.random.default_rng(options.seed).spawn(2)
    return (
        language(length=length, holdout_size=holdout_size),
        code_generation(length=length, holdout_size=holdout_size, max_bytes=options.code_bytes),
        reasoning(
            length=options.list_length, problems=options.problems, holdout_size=holdout_size, rng=lists
        ),
        strategic_planning(
            side=options.maze_side, problems=options.problems, holdout_size=holdout_size, rng=mazes
        ),
    )
