"""Configurations that are drawn at random, and one that is under the ceilings and not known."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping
from typing import Any

from safety import Allow, SearchExhausted, Verdict, request_digest
from search_spaces.random_trial import RandomTrial
from search_spaces.space import Suggests

# different ones that are judged, and draws in all: of few specs, the rarest is drawn too
RANDOM_DRAWS = 1000
MOST_DRAWS = 10_000


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
    admitted: dict[str, bool] = {}
    for _ in range(MOST_DRAWS):
        config = random_config(space, rng)
        digest = request_digest(config)
        if digest in admitted:
            continue
        admitted[digest] = isinstance(judge(config), Allow)
        if admitted[digest] and digest not in known:
            return config
        if len(admitted) == RANDOM_DRAWS:
            break
    if not any(admitted.values()):
        raise SearchExhausted(f"none of {len(admitted)} random specs of the space is under every ceiling")
    return None
