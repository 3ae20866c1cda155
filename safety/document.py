"""Documents from outside: strict YAML with line numbers, and one-line errors for what doesn't fit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from safety.errors import DocumentError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_SIZE = 2**62

_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}

Location = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys and converts nothing silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class Document:
    """Plain data with where each field stands.

    Attributes:
        source: name of the file, for messages.
        data: mappings, lists and scalars.
        lines: line of each field, counted from 1.
    """

    source: str
    data: object
    lines: Mapping[Location, int] = field(default_factory=dict)

    def where(self, location: Location) -> str:
        """`file:line`, or the file alone where the field isn't in it."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.lines:
                return f"{self.source}:{self.lines[location[:end]]}"
        return self.source

    def part(self, *location: str) -> Document:
        """The document below a field."""
        data = self.data
        for key in location:
            if not isinstance(data, Mapping):
                raise DocumentError(f"{self.where(location)}: {'.'.join(location)}: expected a mapping")
            data = data[key]
        depth = len(location)
        lines = {place[depth:]: line for place, line in self.lines.items() if place[:depth] == location}
        return Document(source=self.source, data=data, lines=lines)


def read_yaml(path: Path) -> Document:
    """Read a YAML 1.2 file of plain data.

    Aliases, duplicate keys, tags, infinities and files over 1 MB are refused; `1e15` is a number.

    Raises:
        DocumentError: one line with the file, the line and what was expected.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DocumentError(f"{path}: expected a file of at most {MAX_BYTES:,} bytes")
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: expected UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_yaml(text, source=str(path))


def parse_yaml(text: str, *, source: str) -> Document:
    """Parse YAML text; see `read_yaml`."""
    if text.startswith("\ufeff"):
        raise DocumentError(f"{source}:1: expected plain UTF-8, found a byte order mark")
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise DocumentError(f"{source}:{line}: aliases are not accepted")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DocumentError(f"{source}:{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise DocumentError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from None
    lines: dict[Location, int] = {}
    data = {} if root is None else _plain(root, (), source, lines)
    return Document(source=source, data=data, lines=lines)


def _plain(node: yaml.Node, location: Location, source: str, lines: dict[Location, int]) -> object:
    here = f"{source}:{node.start_mark.line + 1}: {dotted(location)}"
    lines.setdefault(location, node.start_mark.line + 1)
    if len(location) > MAX_DEPTH:
        raise DocumentError(f"{here}: nested deeper than {MAX_DEPTH}")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*location, i), source, lines) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, location, source, lines)
    if node.tag.startswith("!"):
        raise DocumentError(f"{here}: tags are not accepted, found {node.tag}")
    return _scalar(node, here)


def _mapping(
    node: yaml.MappingNode, location: Location, source: str, lines: dict[Location, int]
) -> dict[str, object]:
    result: dict[str, object] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise DocumentError(f"{source}:{line}: expected a plain word as key")
        key = str(key_node.value)
        place = (*location, key)
        if key in result:
            raise DocumentError(f"{source}:{line}: {dotted(place)}: stands here a second time")
        lines[place] = line
        result[key] = _plain(value_node, place, source, lines)
    return result


def _scalar(node: yaml.Node, here: str) -> object:
    text = str(node.value)
    if getattr(node, "style", None) is not None:
        return text
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        number = float(text)
        if not math.isfinite(number):
            raise DocumentError(f"{here}: expected a finite number, found {text}")
        return number
    return text


def dotted(location: Location) -> str:
    """A field's place as people write it: `bounds.max_params`, `heads[0].name`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def validate(model: type[ModelT], document: Document) -> ModelT:
    """Parse a document into a model.

    Raises:
        DocumentError: one line for the first field that doesn't fit.
    """
    if not isinstance(document.data, Mapping):
        raise DocumentError(f"{document.where(())}: expected a mapping, found {shown(document.data)}")
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise DocumentError(_one_line(error, document)) from None


def _one_line(error: ValidationError, document: Document) -> str:
    first = error.errors(include_url=False)[0]
    location = tuple(part for part in first["loc"] if not _is_pydantic_branch(part))
    where, name, given = document.where(location), dotted(location), shown(first["input"])
    kind = first["type"]
    if kind == "extra_forbidden":
        return f"{where}: {name}: unknown key"
    if kind == "missing":
        return f"{where}: {name}: missing, and required"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if name:
        return f"{where}: {name}: {message}, found {given}"
    return f"{where}: {message}"


def _is_pydantic_branch(part: str | int) -> bool:
    # pydantic names the branch of a union or a validator in the location; people wrote no such key
    return isinstance(part, str) and ("[" in part or part in {"function-before", "constrained-int"})


def shown(value: object) -> str:
    """A value, short enough for one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole_number(value: object) -> int:
    """An exact integer from 0 to 2^62; `10e9` counts, `True`, `"12"` and `1.5` don't.

    Raises:
        ValueError: what was expected.
    """
    expected = f"expected a whole number from 0 to {MAX_SIZE}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(expected)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(expected)
    if not 0 <= value <= MAX_SIZE:
        raise ValueError(expected)
    return int(value)
