"""The doors of a search space: what a sampler may choose, what it costs, how it is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from search_spaces.cost import Cost

if TYPE_CHECKING:
    from torch import nn

SpecT = TypeVar("SpecT")
Choice = bool | int | float | str | None


class Suggest(Protocol):
    """The part of an Optuna trial that a space asks; `optuna.Trial` and `FixedTrial` satisfy it."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Choose an integer in [low, high]."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Choose a float in [low, high]."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Choice:
        """Choose one of the choices."""
        ...


class SearchSpace(Protocol[SpecT]):
    """A set of architectures: suggest one, price it, build it."""

    def suggest(self, trial: Suggest) -> SpecT:
        """Choose a spec by define-by-run: later choices may depend on earlier ones."""
        ...

    def cost(self, spec: SpecT) -> Cost:
        """Price the spec by arithmetic alone: no torch, no allocation."""
        ...

    def build(self, spec: SpecT) -> nn.Module:
        """Build the model on the current default device."""
        ...
