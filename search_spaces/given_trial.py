"""A trial whose answers are given: a spec is rebuilt from its parameters, or written down by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from search_spaces.choices import stem
from search_spaces.space import Choice, Suggests

SpecT = TypeVar("SpecT")


class GivenTrial:
    """Answers from a mapping, each checked against what the space offers.

    A parameter whose name carries the choices it was offered (`head_size[16,32]`) is also found by the
    part before the bracket. `params` holds what was asked, by full name.
    """

    def __init__(self, given: Mapping[str, object]) -> None:
        self.params: dict[str, Choice] = {}
        self._given = given
        self._used: set[str] = set()

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return the given integer, if it is in [low, high] and on the grid."""
        del log
        value = self._find(name)
        if type(value) is not int or not low <= value <= high or (value - low) % step:
            raise ValueError(f"{name}: expected a whole number from {low} to {high}, found {value!r}")
        self.params[name] = value
        return value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return the given number, if it is in [low, high]."""
        del step, log
        value = self._find(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{name}: expected a number from {low} to {high}, found {value!r}")
        self.params[name] = float(value)
        return float(value)

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice:
        """Return the given choice, if it is offered; 1 is not True."""
        value = self._find(name)
        for choice in choices:
            if type(choice) is type(value) and choice == value:
                self.params[name] = choice
                return choice
        raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}, found {value!r}")

    def _find(self, name: str) -> object:
        for candidate in (name, stem(name)):
            if candidate in self._given:
                self._used.add(candidate)
                return self._given[candidate]
        raise ValueError(f"{name}: missing")

    def unused(self) -> list[str]:
        """Names that were given and never asked."""
        return sorted(set(self._given) - self._used)


def spec_from(space: Suggests[SpecT], given: Mapping[str, object]) -> tuple[SpecT, dict[str, Choice]]:
    """Rebuild a spec; also its parameters by full name.

    Raises:
        ValueError: one is missing, out of range, or not asked for; the message names it.
    """
    trial = GivenTrial(given)
    spec = space.suggest(trial)
    if trial.unused():
        raise ValueError(f"{trial.unused()[0]}: this space doesn't ask for it here")
    return spec, trial.params
