"""Documents from outside: strict YAML with line numbers, and one-line errors for what doesn't fit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from safety.errors import DocumentError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_SIZE = 2**62
FLOPS_PER_GFLOP = 10**9
MAX_FLOPS = MAX_SIZE * FLOPS_PER_GFLOP
# of an integer; a longer one is beyond every size
MAX_DIGITS = 300

_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"[-+]?\.inf\Z|\.nan\Z", re.IGNORECASE)
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
        above: the field that this document was taken from, for messages.
    """

    source: str
    data: object
    lines: Mapping[Location, int] = field(default_factory=dict)
    above: Location = ()

    def where(self, location: Location) -> str:
        """`file:line`, of the nearest field around where this one isn't in the file."""
        for end in range(len(location), -1, -1):
            if location[:end] in self.lines:
                return f"{self.source}:{self.lines[location[:end]]}"
        return self.source

    def named(self, location: Location) -> str:
        """`file:line: field`."""
        name = dotted((*self.above, *location))
        return f"{self.where(location)}: {name}" if name else self.where(location)

    def part(self, *location: str) -> Document:
        """The document below a field.

        Raises:
            DocumentError: there is none.
        """
        data = self.data
        for depth, key in enumerate(location):
            if not isinstance(data, Mapping):
                raise DocumentError(
                    f"{self.named(location[:depth])}: expected a mapping, found {shown(data)}"
                )
            if key not in data:
                raise DocumentError(f"{self.named(location[: depth + 1])}: missing, and required")
            data = data[key]
        depth = len(location)
        lines = {place[depth:]: line for place, line in self.lines.items() if place[:depth] == location}
        return Document(source=self.source, data=data, lines=lines, above=(*self.above, *location))


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
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        cause = getattr(error, "strerror", None) or error
        raise DocumentError(f"{str(path)!a}: cannot be read: {cause}") from None
    return parse_yaml(text, source=str(path))


def parse_yaml(text: str, *, source: str) -> Document:
    """Parse YAML text; see `read_yaml`."""
    if text.startswith("\ufeff"):
        raise DocumentError(f"{source}:1: expected plain UTF-8, found a byte order mark")
    try:
        _check_events(text, source)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        told = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise DocumentError(f"{source}:{_line(error.problem_mark)}: not valid YAML: {told}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(f"{source}:{line}: not valid YAML: {error.reason}") from None
    lines: dict[Location, int] = {}
    data = {} if root is None else _plain(root, (), source, lines)
    return Document(source=source, data=data, lines=lines)


def _line(mark: Any) -> int:
    return mark.line + 1 if mark else 1


def _check_events(text: str, source: str) -> None:
    """Refuse aliases, tags and deep nesting before anything is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        here = f"{source}:{_line(event.start_mark)}"
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"{here}: expected a plain value, found the alias *{event.anchor}")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise DocumentError(f"{here}: expected a plain value, found the tag {tag}")
        if depth > MAX_DEPTH:
            raise DocumentError(f"{here}: expected at most {MAX_DEPTH} levels of nesting")


def _plain(node: yaml.Node, location: Location, source: str, lines: dict[Location, int]) -> object:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*location, i), source, lines) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, location, source, lines)
    return _scalar(node, f"{source}:{node.start_mark.line + 1}: {dotted(location)}")


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
            raise DocumentError(f"{source}:{line}: {dotted(place)}: expected once, stands here a second time")
        lines[place] = line
        result[key] = _plain(value_node, place, source, lines)
    return result


def _scalar(node: yaml.Node, here: str) -> object:
    text = str(node.value)
    if getattr(node, "style", None) is not None:
        return text
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if _INT.match(text) and len(text) <= MAX_DIGITS:
        return int(text)
    if _FLOAT.match(text) and math.isfinite(float(text)):
        return float(text)
    if _FLOAT.match(text) or _NOT_FINITE.match(text):
        raise DocumentError(f"{here}: expected a finite number, found {shown(text)}")
    return text


def dotted(location: Location) -> str:
    """A field's place as people write it: `bounds.max_params`, `heads[0].name`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if part.isprintable() and len(part) <= 60 else shown(part)
            text += f".{word}" if text else word
    return text


def validate(model: type[ModelT], document: Document) -> ModelT:
    """Parse a document into a model.

    Raises:
        DocumentError: one line for the first field that doesn't fit.
    """
    if not isinstance(document.data, Mapping):
        raise DocumentError(f"{document.named(())}: expected a mapping, found {shown(document.data)}")
    try:
        return model.model_validate(dict(document.data))
    except ValidationError as error:
        raise DocumentError(_one_line(error, document)) from None


def _one_line(error: ValidationError, document: Document) -> str:
    found = [(_place(detail, document.data), detail) for detail in error.errors(include_url=False)]
    # a union tells of each of its branches; the one that fits best was followed furthest
    first = found[0][0]
    place = max((other for other, _ in found if other[: len(first)] == first), key=len)
    here = [detail for other, detail in found if other == place]
    kind, name = here[0]["type"], document.named(place)
    if kind == "extra_forbidden":
        return f"{name}: unknown key"
    if kind == "missing":
        return f"{name}: missing, and required"
    wanted = dict.fromkeys(_wanted(detail) for detail in here)
    return f"{name}: {' or '.join(wanted)}, found {shown(here[0]['input'])}".replace(" or expected ", " or ")


def _place(detail: ErrorDetails, data: Any) -> Location:
    """Where people wrote it: pydantic's location also names branches of unions, and validators."""
    place: Location = ()
    for part in detail["loc"]:
        inside = (
            part in data if isinstance(data, Mapping) else isinstance(data, list) and part in range(len(data))
        )
        if inside:
            place, data = (*place, part), data[part]
    return (*place, detail["loc"][-1]) if detail["type"] == "missing" else place


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "invalid_key": "text as key",
    "literal_error": "{expected}",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "greater_than": "a number over {gt}",
    "greater_than_equal": "a number from {ge}",
    "less_than": "a number under {lt}",
    "less_than_equal": "a number up to {le}",
}


def _wanted(detail: ErrorDetails) -> str:
    if detail["type"] in _EXPECTED:
        return f"expected {_EXPECTED[detail['type']].format(**detail.get('ctx', {}))}"
    return " ".join(detail["msg"].removeprefix("Value error, ").split())


def shown(value: object) -> str:
    """A value, short enough for one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole_number(value: object) -> int:
    """An exact integer from 0 to 2^62; `10e9` counts, `True`, `"12"` and `1.5` don't.

    Raises:
        ValueError: what was expected.
    """
    return _exact(value, MAX_SIZE, "2^62")


def flop_count(value: object) -> int:
    """The same from 0 to 2^62 GFLOP: a training's FLOPs may be beyond 64 bits, its GFLOP are not.

    Raises:
        ValueError: what was expected.
    """
    return _exact(value, MAX_FLOPS, "2^62 x 10^9")


def _exact(value: object, most: int, named: str) -> int:
    expected = f"expected a whole number from 0 to {named}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(expected)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(expected)
    if not 0 <= value <= most:
        raise ValueError(expected)
    return int(value)
