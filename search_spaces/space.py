"""The doors of a search space: what a sampler may choose, what it costs, how it is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from search_spaces.cost import Cost
from search_spaces.inheritance import Inheritance

if TYPE_CHECKING:
    from torch import Tensor, nn

SpecT = TypeVar("SpecT")
SpecT_co = TypeVar("SpecT_co", covariant=True)
SpecT_contra = TypeVar("SpecT_contra", contravariant=True)
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
    """A set of architectures: suggest one, price it, build it.

    A space of your own whose children shall begin with their parent's weights has the two doors of `Grows` as
    well; without them every child begins afresh.
    """

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


@runtime_checkable
class Grows(Protocol[SpecT_contra]):
    """The optional doors of a search space: how a child begins with its parent's weights.

    `search_spaces.growth` asks them, and knows how the spaces of this package grow.
    """

    def relation(self, old: SpecT_contra, new: SpecT_contra) -> Inheritance:
        """What a child of spec `new` inherits from a parent of spec `old`, by arithmetic alone."""
        ...

    def inherit(
        self,
        old: SpecT_contra,
        parent: Mapping[str, Tensor],
        new: SpecT_contra,
        fresh: Mapping[str, Tensor],
    ) -> Mapping[str, Tensor]:
        """All of the child's weights by name, from the parent's and fresh ones: float64, on the CPU."""
        ...
