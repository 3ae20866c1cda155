"""The doors of a search space: what a sampler may choose, what it costs, how it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from search_spaces.cost import Cost

if TYPE_CHECKING:
    from torch import nn

SpecT = TypeVar("SpecT")
SpecT_co = TypeVar("SpecT_co", covariant=True)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One input of one task head, described without torch.

    Attributes:
        shape: of one sample; a batch has one more dimension before it.
        dtype: torch's name of it, such as "int64" or "float32".
    """

    shape: tuple[int, ...]
    dtype: str


class Suggests(Protocol[SpecT_co]):
    """What a sampler can search: a space, or one with hyperparameters beside it."""

    def suggest(self, trial: Suggest) -> SpecT_co:
        """Choose by define-by-run: later choices may depend on earlier ones."""
        ...


class SearchSpace(Protocol[SpecT]):
    """A set of architectures: suggest one, price it, build it."""

    def suggest(self, trial: Suggest) -> SpecT:
        """Choose a spec by define-by-run: later choices may depend on earlier ones."""
        ...

    def cost(self, spec: SpecT) -> Cost:
        """Price the spec by arithmetic alone: no torch, no allocation."""
        ...

    def samples(self) -> Mapping[str, Sample]:
        """One sample of every head by its name: what `cost` prices and the built model is called with."""
        ...

    def build(self, spec: SpecT) -> nn.Module:
        """Build the model on the current default device."""
        ...
