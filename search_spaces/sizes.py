"""Validation of the sizes that a spec or a space is made of: every problem on a line of its own."""

from __future__ import annotations

from collections.abc import Sequence

# Far above anything that can be built, and low enough to catch a slip.
LARGEST = 2**40


def refuse(problems: Sequence[str]) -> None:
    """Raise ValueError where there are problems, one line for each."""
    if problems:
        raise ValueError("\n".join(problems))


def problems_of_size(name: str, value: object) -> list[str]:
    """A whole number from 1 to LARGEST; a bool is not a number."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST:
        return []
    return [f"{name}: {value!r}, expected an integer from 1 to {LARGEST}"]


def problems_of_sizes(name: str, values: object) -> list[str]:
    """One or more sizes, none twice."""
    if not isinstance(values, tuple) or not values:
        return [f"{name}: {values!r}, expected a tuple of one or more integers"]
    problems = [problem for value in values for problem in problems_of_size(name, value)]
    if not problems and len(set(values)) < len(values):
        problems.append(f"{name}: {values!r}, expected each integer once")
    return problems


def problems_of_range(name: str, value: object) -> list[str]:
    """A pair of sizes, the least first."""
    if not isinstance(value, tuple) or len(value) != 2:
        return [f"{name}: {value!r}, expected a pair (least, most)"]
    problems = [problem for size in value for problem in problems_of_size(name, size)]
    if not problems and value[0] > value[1]:
        problems.append(f"{name}: {value!r}, expected the least first")
    return problems


def problems_of_choice(name: str, value: object, allowed: Sequence[object]) -> list[str]:
    """One of the allowed values, and of their type: 1 is not True."""
    if any(type(value) is type(one) and value == one for one in allowed):
        return []
    return [f"{name}: {value!r}, expected one of {list(allowed)}"]


def problems_of_choices(name: str, values: object, allowed: Sequence[object]) -> list[str]:
    """One or more of the allowed values, none twice."""
    if not isinstance(values, tuple) or not values:
        return [f"{name}: {values!r}, expected a tuple of one or more of {list(allowed)}"]
    problems = [problem for value in values for problem in problems_of_choice(name, value, allowed)]
    if not problems and len(set(values)) < len(values):
        problems.append(f"{name}: {values!r}, expected each value once")
    return problems


def problems_of_name(name: str, value: object) -> list[str]:
    """A Python identifier."""
    if isinstance(value, str) and value.isidentifier():
        return []
    return [f"{name}: {value!r}, expected a Python identifier"]
