"""Parameters as levels: each value of one that has few, eight parts of the range of one that has many."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from rsi_ray.samplers.known_specs import number_of_values, values_of

PARTS = 8
NUMBERS = (FloatDistribution, IntDistribution)
Number = FloatDistribution | IntDistribution


def number_of_levels(distribution: BaseDistribution) -> int:
    """How many levels a parameter has."""
    if isinstance(distribution, NUMBERS) and number_of_values(distribution) > PARTS:
        return PARTS
    return int(number_of_values(distribution))


def levels_of(distribution: BaseDistribution) -> Callable[[Any], int | None]:
    """The level of each value, from 0; None where the parameter has no such value."""
    if isinstance(distribution, NUMBERS) and number_of_values(distribution) > PARTS:
        return partial(_part_of, distribution, *_ends(distribution))
    return {value: level for level, value in enumerate(values_of(distribution) or [])}.get


def _part_of(distribution: Number, low: float, high: float, value: float) -> int | None:
    part = math.floor(PARTS * (_scaled(distribution, value) - low) / (high - low))
    return min(part, PARTS - 1) if part >= 0 else None


def value_at(distribution: BaseDistribution, level: int, rng: random.Random) -> Any:
    """The value of a level, drawn evenly from the part of the range that it stands for."""
    if isinstance(distribution, NUMBERS) and number_of_values(distribution) > PARTS:
        low, high = _ends(distribution)
        place = low + (high - low) * (level + rng.random()) / PARTS
        return on_grid(math.exp(place) if distribution.log else place, distribution)
    return (values_of(distribution) or [])[level]


def on_grid(value: float, distribution: Number) -> int | float:
    """The value of the parameter that is nearest to this one."""
    if distribution.step is not None:
        steps = round((value - distribution.low) / distribution.step)
        value = distribution.low + steps * distribution.step
    return min(max(value, distribution.low), distribution.high)


def _ends(distribution: Number) -> tuple[float, float]:
    return _scaled(distribution, distribution.low), _scaled(distribution, distribution.high)


def _scaled(distribution: Number, value: float) -> float:
    return math.log(value) if distribution.log else value
