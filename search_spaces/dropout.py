"""Validation of dropout: the share of values that training sets to zero."""

from __future__ import annotations


def problems_of_dropout(name: str, value: object) -> list[str]:
    """A float of at least 0 and less than 1; NaN is neither."""
    if isinstance(value, float) and 0 <= value < 1:
        return []
    return [f"{name}: {value!r}, expected a float of at least 0 and less than 1"]


def problems_of_dropouts(name: str, values: object) -> list[str]:
    """One or more of them, none twice."""
    if not isinstance(values, tuple) or not values:
        return [f"{name}: {values!r}, expected a tuple of one or more floats"]
    problems = [problem for value in values for problem in problems_of_dropout(name, value)]
    if not problems and len(set(values)) < len(values):
        problems.append(f"{name}: {values!r}, expected each float once")
    return problems
