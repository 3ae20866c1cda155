"""How a space asks a trial: one name always has one distribution, and what is settled is not asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

from search_spaces.space import Choice, Suggest

ChoiceT = TypeVar("ChoiceT", bound=Choice)


def divisors(number: int, candidates: Iterable[int]) -> tuple[int, ...]:
    """The candidates that divide the number."""
    return tuple(candidate for candidate in candidates if number % candidate == 0)


def choose(trial: Suggest, name: str, choices: Sequence[ChoiceT]) -> ChoiceT:
    """One of the choices; where there is but one, the trial is not asked."""
    return choices[0] if len(choices) == 1 else cast("ChoiceT", trial.suggest_categorical(name, choices))


def choose_among(trial: Suggest, name: str, choices: Sequence[int]) -> int:
    """One of choices that depend on earlier ones: they are part of the name, as Optuna wants of a name."""
    return choose(trial, f"{name}[{','.join(map(str, choices))}]", choices)


def stem(name: str) -> str:
    """A parameter's name without the choices that it may carry; see `choose_among`."""
    return name.split("[", 1)[0]


def choose_size(trial: Suggest, name: str, bounds: tuple[int, int]) -> int:
    """A size from the least to the most; where they are the same, the trial is not asked."""
    return bounds[0] if bounds[0] == bounds[1] else trial.suggest_int(name, *bounds)
