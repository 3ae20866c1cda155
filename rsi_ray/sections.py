"""Sections of the YAML file that are made from the dataclasses they configure, one for each kind."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pydantic
from pydantic import BeforeValidator, create_model

from safety import Document, DocumentError, StrictModel, validate
from safety.document import shown, whole_number

KIND = "kind"
Whole = Annotated[int, BeforeValidator(whole_number)]
OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")


class OwnSection(StrictModel):
    """A class of your own, named `module:Class`; it is called with the options, and with `heads` and
    `batch_size` where its signature has them."""

    kind: str = pydantic.Field(description="`module:Class`, where Python finds it from here")
    options: dict[str, Any] = pydantic.Field(default_factory=dict, description="keywords of the class")


def section_of(kind: str, cls: type, *, hidden: tuple[str, ...] = ()) -> type[StrictModel]:
    """The section that configures a dataclass: its fields, their defaults, what its docstring says of each.

    Args:
        kind: value of the section's `kind`.
        cls: a dataclass whose fields are numbers, texts, booleans, choices, and tuples of these.
        hidden: fields that don't come from the file.
    """
    hints, told = get_type_hints(cls), described(cls)
    parts: dict[str, Any] = {KIND: (Literal[kind], pydantic.Field(default=kind, description="this section"))}
    for field in fields(cls):
        if field.name not in hidden:
            parts[field.name] = (_in_file(hints[field.name]), _field(field, told.get(field.name, "")))
    model: type[StrictModel] = create_model(f"{cls.__name__}Section", __base__=StrictModel, **parts)
    model.__doc__ = (inspect.getdoc(cls) or "").split("\n\n")[0]
    return model


def _field(field: Field[Any], description: str) -> Any:
    if field.default is not MISSING:
        return pydantic.Field(default=_listed(field.default), description=description)
    if field.default_factory is not MISSING:
        return pydantic.Field(default_factory=field.default_factory, description=description)
    return pydantic.Field(description=description)


def _in_file(hint: Any) -> Any:
    """The type that a file has for a dataclass's: lists for tuples, exact whole numbers."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is int:
        return Whole
    if origin in (Union, UnionType):
        return Union[tuple(_in_file(one) for one in inside)]  # noqa: UP007
    if origin is tuple and inside[-1] is not Ellipsis:
        count = len(inside)
        listed = list.__class_getitem__(_in_file(inside[0]))
        return Annotated[listed, pydantic.Field(min_length=count, max_length=count)]
    if origin is tuple:
        return list.__class_getitem__(_in_file(inside[0]))
    return hint


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, tuple) else value


def options_of(section: StrictModel) -> dict[str, Any]:
    """A section's values as its dataclass takes them."""
    values = section.model_dump(exclude={KIND})
    return {name: _tupled(value) for name, value in values.items()}


def _tupled(value: Any) -> Any:
    return tuple(_tupled(one) for one in value) if isinstance(value, list) else value


def described(cls: type) -> dict[str, str]:
    """What a class's docstring says of each of its attributes."""
    text = inspect.getdoc(cls) or ""
    _, _, attributes = text.partition("Attributes:\n")
    told: dict[str, str] = {}
    names: list[str] = []
    for line in attributes.splitlines():
        if not line.startswith("    "):
            break
        begun = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if begun:
            names = begun[1].split(", ")
            told |= dict.fromkeys(names, begun[2])
        else:
            told |= {name: f"{told[name]} {line.strip()}" for name in names}
    return {name: words.removesuffix(".") for name, words in told.items()}


def parse_section(
    document: Document, part: str, sections: Mapping[str, type[StrictModel]], *, default: str
) -> StrictModel:
    """Parse a part of a file by its `kind`.

    Raises:
        DocumentError: no section is of that kind, or a field doesn't fit.
    """
    below = document.part(part)
    if not isinstance(below.data, Mapping):
        raise DocumentError(f"{below.named(())}: expected a mapping, found {shown(below.data)}")
    kind = below.data.get(KIND, default)
    if isinstance(kind, str) and OWN.match(kind):
        return validate(OwnSection, below)
    if kind not in sections:
        kinds = ", ".join(sections)
        raise DocumentError(
            f"{below.named((KIND,))}: expected one of {kinds}, or module:Class, found {shown(kind)}"
        )
    return validate(sections[kind], below)
