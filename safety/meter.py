"""The port by which a worker counts the models that a trial really runs, and how its maker is found."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Protocol

# each entry point is named like the library that it measures: `torch = "module:Class"`
GROUP = "safety.meters"
# a checkout that was not installed has no entry points
BUILT_IN = (("torch", "rsi_ray.model_meter:ModelMeter"),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """All models of a trial that have run so far, together.

    Attributes:
        params: numbers in their parameters.
        forward_flops: FLOPs of one forward pass of one sample; None where they can't be counted.
        reason: why they can't be.
    """

    params: int
    forward_flops: int | None
    reason: str = ""


class Meter(Protocol):
    """Watches a process for models that run."""

    def begin(self, judge: Callable[[Counted], None]) -> None:
        """Begin another trial.

        From now on each model that runs for the first time is counted before it runs, and `judge` is told;
        it raises where the model must not run, and then no other one runs either.
        """
        ...


def found_meters() -> tuple[tuple[str, str], ...]:
    """(library, `module:Class`) of every meter that is installed."""
    return installed(GROUP) or BUILT_IN


def installed(group: str) -> tuple[tuple[str, str], ...]:
    """(library, `module:Class`) of every entry point of a group."""
    return tuple((point.name, point.value) for point in entry_points(group=group))


def made_from(path: str) -> Any:
    """An object of a class that is told as `module:Class`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)()


class Meters:
    """Several meters, each made when the library that it measures is imported.

    Args:
        makers: (library, `module:Class`) of each.
    """

    def __init__(self, makers: Sequence[tuple[str, str]]) -> None:
        self._meters: list[Meter] = []
        self._judge: Callable[[Counted], None] | None = None
        for library, path in makers:
            when_imported(library, partial(self._add, path))

    def _add(self, path: str) -> None:
        meter: Meter = made_from(path)
        self._meters.append(meter)
        if self._judge:
            meter.begin(self._judge)

    def begin(self, judge: Callable[[Counted], None]) -> None:
        """Begin another trial."""
        self._judge = judge
        for meter in self._meters:
            meter.begin(judge)


def when_imported(library: str, then: Callable[[], object]) -> None:
    """Call once the library is imported in this process; at once where it is already."""
    if library in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Watcher(library, then))


class _Watcher(MetaPathFinder):
    """Finds the library as Python does, and calls when it has run."""

    def __init__(self, library: str, then: Callable[[], object]) -> None:
        self._library = library
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname != self._library:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)  # by all who are left: others may wait for the same library
        if spec is not None and spec.loader is not None:
            spec.loader = _Calling(spec.loader, self._then)
        return spec


class _Calling(Loader):
    """A loader that calls after the module has run."""

    def __init__(self, loader: Loader, then: Callable[[], object]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._then()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
