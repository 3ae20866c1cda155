"""Hyperparameters of the training that are searched beside the architecture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, cast, get_args

from rsi_ray.members import Members
from rsi_ray.training import Schedule, Training
from search_spaces.sizes import problems_of_choices, problems_of_sizes, refuse
from search_spaces.space import SearchSpace, Suggest

SpecT = TypeVar("SpecT")

PREFIX = "training."
"""Of every hyperparameter's name in a candidate's configuration."""

OVER_ZERO = ("lowest", "highest", "numbers over 0")
FROM_ZERO = ("fewest", "most", "whole numbers from 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingChoices:
    """What is searched; all that is left out stays as the base training has it.

    Attributes:
        learning_rate: lowest and highest peak, searched on a log scale.
        weight_decay: lowest and highest, searched on a log scale.
        schedule: ways from the peak to the end.
        batch_size: samples per head and step.
        warmup_steps: fewest and most.

    Raises:
        ValueError: a value is out of its range; one line for each, with the field's name.
    """

    learning_rate: tuple[float, float] | None = None
    weight_decay: tuple[float, float] | None = None
    schedule: tuple[Schedule, ...] = ()
    batch_size: tuple[int, ...] = ()
    warmup_steps: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        problems = [
            *_problems_of_pair("learning_rate", self.learning_rate, _is_positive, *OVER_ZERO),
            *_problems_of_pair("weight_decay", self.weight_decay, _is_positive, *OVER_ZERO),
            *_problems_of_pair("warmup_steps", self.warmup_steps, _is_count, *FROM_ZERO),
        ]
        if self.schedule != ():
            problems += problems_of_choices("schedule", self.schedule, get_args(Schedule))
        if self.batch_size != ():
            problems += problems_of_sizes("batch_size", self.batch_size)
        refuse(problems)

    def check(self, members: Members) -> None:
        """Refuse to search the learning rate where the members have several.

        Raises:
            ValueError: they do.
        """
        if members.learning_rates and self.learning_rate is not None:
            raise ValueError(
                "learning_rate: searched, and training.members.learning_rates trains several of them side by "
                "side; expected one of both"
            )

    def suggest(self, trial: Suggest, base: Training) -> Training:
        """Choose a training: `base` with what is searched; a trial isn't asked where there is but one value.

        Raises:
            ValueError: see `Training`.
        """
        chosen: dict[str, Any] = {}
        for name in ("learning_rate", "weight_decay"):
            if (span := getattr(self, name)) is not None:
                chosen[name] = _ask_float(trial, name, span)
        for name in ("schedule", "batch_size"):
            if choices := getattr(self, name):
                chosen[name] = _ask_choice(trial, name, choices)
        if self.warmup_steps is not None:
            chosen["warmup_steps"] = _ask_int(trial, "warmup_steps", self.warmup_steps)
        return replace(base, **chosen)


def space_for(space: SearchSpace[SpecT], training: Training) -> SearchSpace[SpecT]:
    """Return the space that prices steps of the training's batch size.

    Raises:
        ValueError: the space has another batch size, or none, and no field to set it by.
    """
    if getattr(space, "batch_size", None) == training.batch_size:
        return space
    if not is_dataclass(space) or "batch_size" not in {field.name for field in fields(space)}:
        raise ValueError(
            f"batch_size: {type(space).__name__} has no field of that name, so that steps of "
            f"{training.batch_size} samples can't be priced; expected a dataclass with a batch_size"
        )
    return cast("SearchSpace[SpecT]", replace(space, batch_size=training.batch_size))


def _ask_float(trial: Suggest, name: str, span: tuple[float, float]) -> float:
    low, high = span
    return low if low == high else trial.suggest_float(PREFIX + name, low, high, log=True)


def _ask_int(trial: Suggest, name: str, span: tuple[int, int]) -> int:
    low, high = span
    return low if low == high else trial.suggest_int(PREFIX + name, low, high)


def _ask_choice(trial: Suggest, name: str, choices: tuple[Any, ...]) -> object:
    return choices[0] if len(choices) == 1 else trial.suggest_categorical(PREFIX + name, choices)


def _problems_of_pair(
    name: str, value: object, is_one: Callable[[object], bool], least: str, most: str, words: str
) -> list[str]:
    """A pair of numbers, the lower first; None for none."""
    if value is None:
        return []
    if not isinstance(value, tuple) or len(value) != 2 or not all(is_one(one) for one in value):
        return [f"{name}: {value!r}, expected a pair ({least}, {most}) of {words}"]
    return [f"{name}: {value!r}, expected the {least} first"] if value[0] > value[1] else []


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
