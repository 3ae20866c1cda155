"""A trial that draws at random: a space sampled without Optuna and without a study."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from search_spaces.space import Choice

ChoiceT = TypeVar("ChoiceT", bound=Choice)


class RandomTrial:
    """Uniform draws (log-uniform where asked), kept in `params`; a name asked again gets its first answer."""

    def __init__(self, rng: random.Random) -> None:
        self.params: dict[str, Choice] = {}
        self._rng = rng

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Draw an integer from low, low + step, ... up to high."""

        def draw() -> int:
            if log:
                # Half a unit to each side, so that both ends are as likely as their neighbours.
                value = math.exp(self._rng.uniform(math.log(low - 0.5), math.log(high + 0.5)))
                return min(max(round(value), low), high)
            return self._rng.randrange(low, high + 1, step)

        return self._once(name, draw)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Draw a float in [low, high], on the grid of step where one is given."""

        def draw() -> float:
            if log:
                value = math.exp(self._rng.uniform(math.log(low), math.log(high)))
            elif step is not None:
                # The small excess keeps the last point of a grid that rounding would cut off.
                value = low + step * self._rng.randint(0, math.floor((high - low) / step + 1e-9))
            else:
                value = self._rng.uniform(low, high)
            return min(max(value, low), high)

        return self._once(name, draw)

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice:
        """Draw one of the choices."""
        return self._once(name, lambda: self._rng.choice(choices))

    def _once(self, name: str, draw: Callable[[], ChoiceT]) -> ChoiceT:
        if name not in self.params:
            self.params[name] = draw()
        return cast("ChoiceT", self.params[name])
