"""A user's own class, named `module:Class`."""

from __future__ import annotations

import importlib
from typing import Any


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
