"""Configurations as rows of numbers, and rows as features, a block for each parameter and each family."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution

from rsi_ray.samplers.known_specs import number_of_values, values_of
from rsi_ray.samplers.levels import NUMBERS, Number, on_grid

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
# numbers on a grid that is no finer are listed; the rest are looked at in so many places
FEW = 16
FINE = 128
# of a number's range: how far a smooth and a rough effect of it reach
REACHES = (1.0, 0.25)
# how far a number is moved along a range; infinity is anywhere
MOVES = np.array([0.02, 0.05, 0.1, 0.2, np.inf, np.inf])
# share of an effect's size that is left out
LEAST = 1e-4


@dataclass(frozen=True)
class Field:
    """A parameter, its values as places: the index of a choice, or 0 to 1 along a range or its logarithm.

    Attributes:
        name: of the parameter.
        distribution: its values, more than one.
    """

    name: str
    distribution: BaseDistribution

    @cached_property
    def values(self) -> list[Any] | None:
        """Every value, where they are few."""
        few = isinstance(self.distribution, CategoricalDistribution)
        few = few or number_of_values(self.distribution) <= FEW
        return values_of(self.distribution) if few else None

    @cached_property
    def ordered(self) -> bool:
        """Whether the values are numbers, which are alike where they are near each other."""
        choices: Sequence[Any] = getattr(self.distribution, "choices", (0, 1))
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in choices)
        rising = numbers and list(choices) in (sorted(choices), sorted(choices, reverse=True))
        return rising and number_of_values(self.distribution) > 2

    @cached_property
    def places(self) -> Array | None:
        """The places of all values; None where they are many."""
        if self.values is None:
            return None
        index = np.arange(len(self.values), dtype=np.float64)
        return index / index[-1] if self.ordered else index

    @cached_property
    def _place_of(self) -> dict[Any, float]:
        places = [] if self.places is None else self.places.tolist()
        return dict(zip(self.values or [], places, strict=True))

    def place(self, value: Any) -> float:
        """Where a value is; that of the nearest one for a number that is none of the values, else NaN."""
        if self.values is not None and value in self._place_of:
            return self._place_of[value]
        if not isinstance(self.distribution, NUMBERS):
            return math.nan
        low, high = self._ends
        where = (_scaled(self.distribution, value) - low) / (high - low)
        where = min(max(where, 0.0), 1.0)
        return where if self.places is None else float(self.places[np.abs(self.places - where).argmin()])

    def value(self, place: float) -> Any:
        """The value at a place."""
        if self.places is not None and self.values is not None:
            return self.values[int(np.abs(self.places - place).argmin())]
        distribution = self.distribution
        if not isinstance(distribution, NUMBERS):
            raise TypeError(f"{self.name}: expected a number's distribution, found {distribution}")
        low, high = self._ends
        number = low + (high - low) * place
        return on_grid(math.exp(number) if distribution.log else number, distribution)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        distribution = self.distribution
        if not isinstance(distribution, NUMBERS):
            raise TypeError(f"{self.name}: expected a number's distribution, found {distribution}")
        return _scaled(distribution, distribution.low), _scaled(distribution, distribution.high)

    @cached_property
    def steps(self) -> int:
        """Places that are told apart along the field, less one."""
        return FINE if self.places is None else len(self.places) - 1

    @cached_property
    def maps(self) -> list[Array]:
        """For each block, its features at every place, (places, width): in the mean 0, and of size 1."""
        if not self.ordered:
            return [_centred(np.eye(len(self.values or ())))]
        at = np.linspace(0.0, 1.0, self.steps + 1)
        found = []
        for reach in REACHES:
            alike = np.exp(-((at[:, None] - at) ** 2) / (2 * reach**2))
            values, vectors = np.linalg.eigh(alike)
            kept = values > LEAST * values[-1]
            found.append(_centred(vectors[:, kept] * np.sqrt(values[kept])))
        return found

    @cached_property
    def table(self) -> Floats:
        """All blocks side by side at every place, and whether it is absent, for which there is a last row."""
        present = np.pad(np.concatenate(self.maps, axis=1), ((0, 1), (0, 1)))
        present[-1, -1] = 1.0
        return present.astype(np.float32)


def _centred(features: Array) -> Array:
    centred = features - features.mean(axis=0)
    return np.asarray(centred / math.sqrt((centred**2).sum(axis=1).mean()))


def _scaled(distribution: Number, value: float) -> float:
    return math.log(value) if distribution.log else float(value)


@dataclass(frozen=True)
class Fields:
    """The parameters of a space that have more than one value, in the order in which they are asked.

    Attributes:
        fields: one for each.
    """

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, space: Mapping[str, BaseDistribution]) -> Fields:
        """The fields of a space."""
        return cls(tuple(Field(name, one) for name, one in space.items() if not one.single()))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.fields)

    @cached_property
    def families(self) -> list[list[int]]:
        """Fields that differ in nothing but a number in their name, as the layers of a network do."""
        families: dict[tuple[str, str], list[int]] = {}
        for index, field in enumerate(self.fields):
            families.setdefault((stem(field.name), repr(field.distribution)), []).append(index)
        return [members for members in families.values() if len(members) > 1]

    def row(self, params: Mapping[str, Any]) -> Array:
        """A configuration as places; NaN for what it has not got."""
        return np.array(
            [one.place(params[one.name]) if one.name in params else math.nan for one in self.fields]
        )

    def params(self, row: Array) -> dict[str, Any]:
        """The configuration of a row."""
        pairs = zip(self.fields, row.tolist(), strict=True)
        return {one.name: one.value(place) for one, place in pairs if not math.isnan(place)}

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """Random rows in which nothing is absent, (count, fields)."""
        places = rng.random((count, len(self)))
        return np.where(self._listed > 0, np.floor(places * self._listed) / self._last, places)

    @cached_property
    def moves(self) -> tuple[Indices, Indices]:
        """Every way to change a row in one field, as indices of fields and steps; see `moved`."""
        steps = [np.arange(1, count) if count else np.arange(-len(MOVES), 0) for count in self._listed]
        which = np.repeat(np.arange(len(self)), [len(one) for one in steps])
        return which, np.concatenate([np.empty(0, dtype=np.int64), *steps])

    def moved(self, places: Array, which: Indices, steps: Indices, rng: np.random.Generator) -> Array:
        """Other places: so many values on, past the last the first ones; along a range near or anywhere.

        Args:
            places: of any shape.
            which: the field of each.
            steps: how each is changed, as `moves` has it.
            rng: of the places along ranges.
        """
        listed, last = self._listed[which], self._last[which]
        on = (np.rint(places * last).astype(np.int64) + steps) % np.maximum(listed, 1) / last
        reach = MOVES[np.minimum(steps, -1)]
        near = np.clip(places + reach * rng.normal(size=places.shape), 0.0, 1.0)
        along = np.where(np.isinf(reach), rng.random(places.shape), near)
        return np.where(listed > 0, on, along)

    @cached_property
    def _listed(self) -> Indices:
        """How many values each field has that are listed, 0 for a range."""
        return np.array([0 if one.places is None else len(one.places) for one in self.fields], dtype=np.int64)

    @cached_property
    def _last(self) -> Indices:
        """The index that the last listed place stands for, by the place."""
        return np.where(self.choices | (self._listed == 0), 1, self._listed - 1)

    def features(self, rows: Array) -> Floats:
        """Features of rows, in single precision, (rows, width)."""
        places = np.where(self.choices, rows, rows * self._steps)
        places = np.where(np.isnan(rows), -1, np.rint(places)).astype(np.int64)
        blocks = [field.table[places[:, index]] for index, field in enumerate(self.fields)]
        for members in self.families:
            total = blocks[members[0]][:, :-1] / math.sqrt(len(members))
            for index in members[1:]:
                total += blocks[index][:, :-1] / math.sqrt(len(members))
            blocks.append(total)
        return np.concatenate([np.empty((len(rows), 0), dtype=np.float32), *blocks], axis=1)

    @cached_property
    def _steps(self) -> npt.NDArray[np.int64]:
        return np.array([field.steps for field in self.fields])

    @cached_property
    def _widths(self) -> dict[str, int]:
        """How many features each block has, by a label that means the same in another space."""
        widths: dict[str, int] = {}
        for field in self.fields:
            widths |= {f"{field.name}/{index}": one.shape[1] for index, one in enumerate(field.maps)}
            widths[f"{field.name}/absent"] = 1
        for members in self.families:
            first = self.fields[members[0]]
            for index, one in enumerate(first.maps):
                widths[f"{first.name} and alike/{index}"] = one.shape[1]
        return widths

    @property
    def labels(self) -> list[str]:
        """A label of each block."""
        return list(self._widths)

    @cached_property
    def blocks(self) -> npt.NDArray[np.int64]:
        """The block of each feature, (width,)."""
        return np.repeat(np.arange(len(self._widths)), list(self._widths.values()))

    @cached_property
    def choices(self) -> npt.NDArray[np.bool_]:
        """Which fields are choices without order."""
        return np.array([not field.ordered for field in self.fields], dtype=np.bool_)


def stem(name: str) -> str:
    """A name without its numbers."""
    return re.sub(r"\d+", "#", name)
