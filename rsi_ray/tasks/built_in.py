"""The built-in task: four capability domains from data that every Python installation carries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rsi_ray.tasks.code_generation import code_generation
from rsi_ray.tasks.language import language
from rsi_ray.tasks.options import HOLDOUT_SIZES, SEEDS, check_ranges
from rsi_ray.tasks.reasoning import reasoning
from rsi_ray.tasks.strategic_planning import strategic_planning
from rsi_ray.tasks.task import Domain, DomainTask
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
        holdout_size: hold-out samples per domain, and as many that are sealed.
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
        check_ranges(self, _RANGES)


_RANGES = {
    "text_length": (1, 4096),
    "code_bytes": (10_000, 100_000_000),
    "list_length": (5, 4096),
    "maze_side": (2, 11),  # Distances fit in an int8.
    "problems": (100, 10_000_000),
    "holdout_size": HOLDOUT_SIZES,
    "seed": SEEDS,
}


BUILT_IN_DEFAULTS = BuiltInOptions()


@lru_cache(maxsize=2)
def built_in_task(options: BuiltInOptions = BUILT_IN_DEFAULTS) -> DomainTask[Head]:
    """Return language, code generation, reasoning and strategic planning, prepared once per process.

    It takes well under a second at the default options.

    Raises:
        ValueError: there is too little data for the hold-out that the options ask for.
    """
    return DomainTask(_domains(options), holdout_size=options.holdout_size)


def _domains(options: BuiltInOptions) -> tuple[Domain[Head], ...]:
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
