"""Spaces and specs as JSON that they can be rebuilt from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from rsi_ray.own import own_class

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None

# of a dataclass: `module:Class`, and its fields
CLASS, FIELDS = "class", "fields"
# of an object that a call makes: `module:Class`, its keywords from a file, and those that are given beside
MADE_BY, OPTIONS, GIVEN = "made_by", "options", "given"
# of anything else, for people
SHOWN = "shown"


def describe(value: object) -> Json:
    """JSON of a value: plain data, tuples, mappings by text, and dataclasses of these.

    Anything else is described for people alone, by its `repr`, and can't be rebuilt.
    """
    if is_dataclass(value) and not isinstance(value, type):
        told = {field.name: describe(getattr(value, field.name)) for field in fields(value) if field.init}
        return {CLASS: _name_of(type(value)), FIELDS: told}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: describe(inside) for key, inside in value.items()}
    if isinstance(value, tuple):
        return [describe(inside) for inside in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return {SHOWN: repr(value)}


def describe_call(name: str, options: Mapping[str, Any], given: Mapping[str, object]) -> Json:
    """JSON of an object that a call makes.

    Args:
        name: `module:Class` that is called.
        options: keywords as they stand in a file: plain data.
        given: other keywords.
    """
    return {MADE_BY: name, OPTIONS: dict(options), GIVEN: describe(given)}


def _name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def rebuilt(description: Json) -> Any:
    """The value that was described; what it names is imported, so let it come from an approved file only.

    Raises:
        ValueError: it was described for people alone, or what it names isn't there or takes other fields.
    """
    if isinstance(description, list):
        return tuple(rebuilt(inside) for inside in description)
    if not isinstance(description, dict):
        return description
    if description.keys() == {CLASS, FIELDS}:
        return _called(description[CLASS], rebuilt(description[FIELDS]), only_dataclass=True)
    if description.keys() == {MADE_BY, OPTIONS, GIVEN}:
        keywords = {**_mapping(description[OPTIONS]), **_mapping(rebuilt(description[GIVEN]))}
        return _called(description[MADE_BY], keywords)
    if description.keys() == {SHOWN}:
        raise ValueError(f"{description[SHOWN]!s:.80} was made in Python, and can't be rebuilt from a file")
    return {name: rebuilt(value) for name, value in description.items()}


def _called(name: Json, keywords: Any, *, only_dataclass: bool = False) -> Any:
    found = own_class(str(name))
    if not only_dataclass and not (isinstance(found, type) and hasattr(found, "suggest")):
        raise ValueError(f"{name!r}, expected a class of a search space")
    if only_dataclass and not (isinstance(found, type) and is_dataclass(found)):
        raise ValueError(f"{name!r}, expected a dataclass")
    try:
        return found(**_mapping(keywords))
    except TypeError as error:
        raise ValueError(f"{name!r}: {error}") from None


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.80}, expected a mapping")
    return value
