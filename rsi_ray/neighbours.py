"""Configurations around a champion's and beyond it: one parameter changed, the rest kept where it fits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial

from rsi_ray.samplers.evolution import changed
from rsi_ray.samplers.known_specs import number_of_values, values_of
from search_spaces.choices import stem
from search_spaces.random_trial import RandomTrial
from search_spaces.space import Choice, Suggests

# a parameter with more values is changed by a few random steps instead of to each of them
FEW = 16


class KeepingTrial(RandomTrial):
    """Answers from given parameters where they are offered, and at random where they aren't.

    A parameter whose name carries the choices that it was offered keeps its value if that is still offered.
    """

    def __init__(self, given: Mapping[str, Choice], rng: random.Random) -> None:
        super().__init__(rng)
        self._given = dict(given)
        self._by_stem = {stem(name): value for name, value in given.items()}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """The given integer, if it is offered."""
        value = self._kept(name)
        if type(value) is int and low <= value <= high and (value - low) % step == 0:
            self.params[name] = value
        return super().suggest_int(name, low, high, step=step, log=log)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The given number, if it is offered."""
        value = self._kept(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            self.params[name] = float(value)
        return super().suggest_float(name, low, high, step=step, log=log)

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice:
        """The given choice, if it is offered; 1 is not True."""
        value = self._kept(name)
        if any(type(choice) is type(value) and choice == value for choice in choices):
            self.params[name] = value
        return super().suggest_categorical(name, choices)

    def _kept(self, name: str) -> Choice:
        return self._given[name] if name in self._given else self._by_stem.get(stem(name))


def neighbours(space: Suggests[Any], config: Mapping[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    """Every configuration with one parameter changed, each once; of a parameter with many values a few."""
    asked = FixedTrial(dict(config))
    space.suggest(asked)
    found: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
    for name, distribution in asked.distributions.items():
        for value in _others(config[name], distribution, rng):
            trial = KeepingTrial({**config, name: value}, rng)
            space.suggest(trial)
            if trial.params != config:
                found.setdefault(tuple(sorted(trial.params.items())), dict(trial.params))
    return list(found.values())


def _others(value: Any, distribution: BaseDistribution, rng: random.Random) -> Iterator[Any]:
    if distribution.single():
        return
    if number_of_values(distribution) > FEW:
        yield from {changed(value, distribution, rng) for _ in range(FEW)}
        return
    yield from (other for other in values_of(distribution) or () if other != value)
