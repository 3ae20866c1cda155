"""A price for a space that has none: its modules are counted on the meta device instead."""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from search_spaces.cost import Cost
from search_spaces.per_sample import PerSample, training_cost
from search_spaces.sizes import problems_of_size, refuse
from search_spaces.space import Sample, SearchSpace, SpecT, Suggest

if TYPE_CHECKING:
    from torch import nn

SpecT_contra = TypeVar("SpecT_contra", contravariant=True)

REMEMBERED = 4096


class Buildable(Protocol[SpecT_contra]):
    """What can be measured."""

    def samples(self) -> Mapping[str, Sample]:
        """One sample of every head by its name."""
        ...

    def build(self, spec: SpecT_contra) -> nn.Module:
        """Build the model on the current default device; called with the samples, it answers by head."""
        ...


class Unpriced(Protocol[SpecT]):
    """A search space without `cost`."""

    def suggest(self, trial: Suggest) -> SpecT:
        """Choose a spec by define-by-run."""
        ...

    def samples(self) -> Mapping[str, Sample]:
        """One sample of every head by its name."""
        ...

    def build(self, spec: SpecT) -> nn.Module:
        """Build the model on the current default device; called with the samples, it answers by head."""
        ...


@dataclass(frozen=True, kw_only=True)
class MeasuredSpace(Generic[SpecT]):
    """Gives a space its `cost`: one forward on the meta device for each new spec, where nothing is allocated.

    A measurement takes milliseconds to seconds, by the number of operators; a process remembers the last
    4,096, whatever the batch size. So that it may, neither space nor specs may change once they are priced.

    Attributes:
        inner: the space, with suggest, samples and build.
        batch_size: samples of a training step.
    """

    inner: Unpriced[SpecT]
    batch_size: int

    def __post_init__(self) -> None:
        refuse(problems_of_size("batch_size", self.batch_size))

    @property
    def heads(self) -> tuple[Any, ...]:
        """The heads of the inner space, where it declares any."""
        return cast("tuple[Any, ...]", cast("Any", self.inner).heads)

    def suggest(self, trial: Suggest) -> SpecT:
        """Choose as the inner space does."""
        return self.inner.suggest(trial)

    def cost(self, spec: SpecT) -> Cost:
        """Price the training of the spec, as `training_cost` says, by what `footprint` counts.

        Raises:
            Unmeasurable: the module does something that is neither counted nor known to be free.
        """
        keyed = _Keyed(key=(_key(self.inner), _key(spec)), space=self.inner, spec=spec)
        one = _remembered(keyed) if _is_hashable(keyed) else _measure(keyed)
        return training_cost(one, self.batch_size)

    def samples(self) -> Mapping[str, Sample]:
        """The inner space's samples."""
        return self.inner.samples()

    def build(self, spec: SpecT) -> nn.Module:
        """Build as the inner space does."""
        return self.inner.build(spec)


def priced(space: SearchSpace[SpecT] | Unpriced[SpecT], batch_size: int) -> SearchSpace[SpecT]:
    """Return the space itself where it has a `cost`, else with one that is measured.

    Raises:
        TypeError: it lacks suggest, samples or build.
    """
    missing = [name for name in ("suggest", "samples", "build") if not callable(getattr(space, name, None))]
    if missing:
        raise TypeError(
            f"{type(space).__name__}: no {', '.join(missing)}; expected a space with suggest, samples, build"
        )
    if callable(getattr(space, "cost", None)):
        return cast("SearchSpace[SpecT]", space)
    return MeasuredSpace(inner=space, batch_size=batch_size)


@dataclass(frozen=True, kw_only=True)
class _Keyed:
    """A spec of a space, equal to another by its key alone."""

    key: Hashable
    space: Unpriced[Any] = field(compare=False)
    spec: Any = field(compare=False)


def _key(value: object) -> Hashable:
    """A key that tells types apart (1 == 1.0 == True), and keeps a dict's order, which a build may read."""
    if is_dataclass(value) and not isinstance(value, type):
        return (type(value), *(_key(getattr(value, one.name)) for one in fields(value)))
    if isinstance(value, Mapping):
        return (type(value), *((_key(name), _key(item)) for name, item in value.items()))
    if isinstance(value, list | tuple):
        return (type(value), *map(_key, value))
    return (type(value), value)


def _is_hashable(keyed: _Keyed) -> bool:
    try:
        hash(keyed)
    except TypeError:
        return False
    return True


def _measure(keyed: _Keyed) -> PerSample:
    # The space is known to drivers that never load torch until they price.
    found = importlib.import_module("search_spaces.footprint").footprint(keyed.space, keyed.spec)
    return cast("PerSample", found)


_remembered = lru_cache(maxsize=REMEMBERED)(_measure)
