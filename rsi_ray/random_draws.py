"""Configurations that are drawn at random, and one that is under the ceilings and not known."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping
from typing import Any

from safety import Allow, SearchExhausted, Verdict, request_digest
from search_spaces.random_trial import RandomTrial
from search_spaces.space import Suggests

RANDOM_DRAWS = 1000


def random_config(space: Suggests[Any], rng: random.Random) -> dict[str, Any]:
    """A random configuration of a space."""
    trial = RandomTrial(rng)
    space.suggest(trial)
    return dict(trial.params)


def draw_elsewhere(
    space: Suggests[Any],
    judge: Callable[[Mapping[str, Any]], Verdict],
    known: Container[str],
    rng: random.Random,
) -> dict[str, Any] | None:
    """A feasible configuration that is not known; None where all that were drawn are.

    Args:
        space: that is drawn from.
        judge: a configuration against the ceilings.
        known: digests of configurations.
        rng: of the draws.

    Raises:
        SearchExhausted: no spec of the space seems to be under the ceilings.
    """
    feasible = 0
    for _ in range(RANDOM_DRAWS):
        config = random_config(space, rng)
        if isinstance(judge(config), Allow):
            feasible += 1
            if request_digest(config) not in known:
                return config
    if not feasible:
        raise SearchExhausted(f"none of {RANDOM_DRAWS} random specs of the space is under every ceiling")
    return None
