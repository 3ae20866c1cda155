"""The specs that a study knows, as a tree in which those that need not be proposed again are closed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

LISTED = 1000


@dataclass
class Place:
    """What was answered where one parameter is asked, after the same answers before it.

    Attributes:
        below: by name and value of the parameter.
        size: values that the parameter can take.
        known: values below which every spec is known.
        refused: values below which every spec is known and was refused.
        is_known, is_refused: whether that holds here.
    """

    below: dict[tuple[str, Any], Place] = field(default_factory=dict)
    size: float = math.inf
    known: int = 0
    refused: int = 0
    is_known: bool = False
    is_refused: bool = False

    def is_open(self, name: str, value: Any) -> bool:
        """Whether a spec with this value is worth a proposal: not known, or at least not refused."""
        place = self.below.get((name, value))
        if place is None or self.is_refused:
            return True
        return not (place.is_refused if self.is_known else place.is_known)


class KnownSpecs:
    """Paths of names and values, in the order in which a define-by-run space asks them."""

    def __init__(self) -> None:
        self._root = Place()
        self._whole: set[frozenset[tuple[str, Any]]] = set()

    def __contains__(self, params: Mapping[str, Any]) -> bool:
        """Whether these are all parameters of a known spec, those with one value aside."""
        return frozenset(params.items()) in self._whole

    def add(self, trial: FrozenTrial, *, refused: bool) -> None:
        """Add the spec of a trial whose parameters were asked to the end."""
        chosen = (item for item in trial.params.items() if not trial.distributions[item[0]].single())
        self._whole.add(frozenset(chosen))
        path = [self._root]
        for name, value in trial.params.items():
            path[-1].size = number_of_values(trial.distributions[name])
            path.append(path[-1].below.setdefault((name, value), Place()))
        _close(path, refused)

    def place(self, params: Mapping[str, Any]) -> Place | None:
        """Where the next parameter is asked after these answers; None where nothing is known of that."""
        place: Place | None = self._root
        for answer in params.items():
            if place is None:
                return None
            place = place.below.get(answer)
        return place


def _close(path: Sequence[Place], refused: bool) -> None:
    """Close the end of a path, and every place before it that has no open value left."""
    newly_known, newly_refused = not path[-1].is_known, refused and not path[-1].is_refused
    path[-1].is_known = True
    path[-1].is_refused |= refused
    for place in reversed(path[:-1]):
        place.known += newly_known
        place.refused += newly_refused
        newly_known = newly_known and place.known >= place.size and not place.is_known
        newly_refused = newly_refused and place.refused >= place.size and not place.is_refused
        place.is_known |= newly_known
        place.is_refused |= newly_refused
        if not newly_known and not newly_refused:
            return


def number_of_values(distribution: BaseDistribution) -> float:
    """How many values a parameter can take; infinity for a continuous one."""
    if isinstance(distribution, CategoricalDistribution):
        return len(set(distribution.choices))
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return round((distribution.high - distribution.low) / distribution.step) + 1
    return 1 if distribution.single() else math.inf


def values_of(distribution: BaseDistribution) -> list[Any] | None:
    """Every value that a parameter can take; None for numbers of which there are more than a thousand."""
    if isinstance(distribution, CategoricalDistribution):
        return list(dict.fromkeys(distribution.choices))
    size = number_of_values(distribution)
    if size > LISTED or not isinstance(distribution, IntDistribution | FloatDistribution):
        return None
    return [distribution.low + (distribution.step or 0) * index for index in range(int(size))]
