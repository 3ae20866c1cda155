"""A user's own class, named `module:Class`, and own task: as workers get it, without what drives a sweep."""

from __future__ import annotations

import importlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsi_ray.tasks.task import Task


def own_class(name: str) -> Any:
    """The object that `module:Class` names.

    Raises:
        ValueError: there is no such module, or nothing of that name in it.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"{name!r}, expected module:Class")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise ValueError(f"{name!r}, the module can't be imported: {kind}{error}") from None
    if not hasattr(module, attribute):
        raise ValueError(f"{name!r}, the module {module_name} has no {attribute}")
    return getattr(module, attribute)


@lru_cache(maxsize=2)
def own_task(name: str, options: str) -> Task:
    """The task that `module:Class` makes of its options as JSON, once per process."""
    task: Task = own_class(name)(**json.loads(options))
    return task


def given_task(task: Task) -> Task:
    """A task that is there already, for whoever calls what gives one."""
    return task
