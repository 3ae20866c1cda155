"""Options of tasks: ranges, paths, and libraries that are needed by some tasks only."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

HOLDOUT_SIZES = (1, 100_000)
SEEDS = (0, 2**63 - 1)


def check_ranges(options: object, ranges: Mapping[str, tuple[int, int]]) -> None:
    """Check options that are whole numbers.

    Raises:
        ValueError: one is not, or is out of its range; the message names it.
    """
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def check_texts(options: object, *names: str) -> None:
    """Check options that are texts.

    Raises:
        ValueError: one is not, or is empty; the message names it.
    """
    for name in names:
        value = getattr(options, name)
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name} must be a text, not {value!r}")


def check_tuple_of_texts(options: object, name: str) -> None:
    """Check an option that is a tuple of texts, so that the options can be hashed.

    Raises:
        ValueError: it is not; the message names it.
    """
    value = getattr(options, name)
    if not isinstance(value, tuple) or not all(isinstance(one, str) and one for one in value):
        raise ValueError(f"{name} must be a tuple of texts, not {value!r}")


def library(module: str, *, package: str, task: str) -> Any:
    """Import a library that only some tasks need.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"task {task}: it needs {package} ({error.name} is not installed), "
            f"expected after `pip install {package}`"
        ) from None
