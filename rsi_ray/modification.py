"""What a promotion has changed: the architecture, field by field, and the score."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from itertools import zip_longest
from typing import Any

from rsi_ray.champion_version import Version
from rsi_ray.description import CLASS, FIELDS, Json, describe
from safety import Champion, Promoted, improvement

NONE = "none"
_MISSING = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One field that differs: `depth: 2 -> 4`.

    Attributes:
        field: its name, with those of the fields around it: `stages[1].width`.
        old, new: its values as people read them; `none` where it isn't there.
    """

    field: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.field}: {self.old} -> {self.new}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Modification:
    """A champion that took another's place.

    Attributes:
        at_ms: Unix time in milliseconds.
        generation: its number.
        artifact: its digest.
        parent: digest of the champion before it; "" for none.
        old_spec, new_spec: descriptions of both architectures; None where a file can't be read any more.
        difference: what changed between them.
        old_score, new_score: as they were promoted.
        performance_delta: by how much it is better, also where a smaller score is; NaN where undefined.
        improvement: the same relative to the old score; None where it is undefined.
        request: digest of the request that was approved; "" for none.
        approvals: names of those who approved.
        rolled_back: whether the lineage went back to before it.
    """

    at_ms: int
    generation: int
    artifact: str
    parent: str
    old_spec: Json
    new_spec: Json
    difference: tuple[Change, ...]
    old_score: float
    new_score: float
    performance_delta: float
    improvement: float | None
    request: str
    approvals: tuple[str, ...]
    rolled_back: bool


def modification(
    promoted: Promoted, champion: Champion, version: Version | None, before: Version | None
) -> Modification:
    """What a promotion has changed.

    Args:
        promoted: the promotion.
        champion: what was promoted.
        version: its file; None where it can't be read any more.
        before: the file of the version whose place it took; None where there is none.
    """
    promotion = promoted.promotion
    old, new = (one.manifest.spec if one else None for one in (before, version))
    gain = promotion.gain
    return Modification(
        at_ms=promotion.at_ms,
        generation=champion.generation,
        artifact=champion.artifact,
        parent=version.manifest.parent if version else champion.parent,
        old_spec=old,
        new_spec=new,
        difference=architecture_difference(old, new) if before and version else (),
        old_score=promotion.old,
        new_score=promotion.new,
        performance_delta=math.nan if gain is None else float(gain),
        improvement=improvement(old=promotion.old, new=promotion.new, mode=promotion.mode),
        request=promoted.request,
        approvals=promoted.approvers,
        rolled_back=promoted.rolled_back,
    )


def architecture_difference(old: Any, new: Any) -> tuple[Change, ...]:
    """Every field in which two architectures differ.

    Args:
        old: a dataclass of plain values, tuples and further dataclasses, or its description.
        new: likewise.
    """
    return tuple(_changes("", _described(old), _described(new)))


def difference_line(changes: tuple[Change, ...]) -> str:
    """All of them in one line."""
    return "; ".join(map(str, changes)) or "the same architecture"


def _described(spec: Any) -> Any:
    return describe(spec) if is_dataclass(spec) else spec


def _changes(name: str, old: Any, new: Any) -> Iterator[Change]:
    if old == new and type(old) is type(new):
        return
    if _is_mapping(old) and _is_mapping(new) and old.get(CLASS) == new.get(CLASS):
        before, after = _fields(old), _fields(new)
        for field in dict.fromkeys([*before, *after]):
            inside = f"{name}.{field}" if name else field
            yield from _changes(inside, before.get(field, _MISSING), after.get(field, _MISSING))
    elif _is_list_of_mappings(old) and _is_list_of_mappings(new):
        for index, (one, other) in enumerate(zip_longest(old, new, fillvalue=_MISSING)):
            yield from _changes(f"{name}[{index}]", one, other)
    else:
        yield Change(field=name or "architecture", old=_text(old), new=_text(new))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_mapping, value))


def _fields(described: dict[str, Any]) -> dict[str, Any]:
    return described[FIELDS] if described.keys() == {CLASS, FIELDS} else described


def _text(value: Any) -> str:
    """A value as a line has it."""
    if value is _MISSING or value is None:
        return NONE
    if isinstance(value, list):
        return f"({', '.join(map(_text, value))})"
    if isinstance(value, dict):
        told = ", ".join(f"{name} {_text(inside)}" for name, inside in _fields(value).items())
        return f"{str(value[CLASS]).rpartition(':')[2]}({told})" if CLASS in value else f"({told})"
    return str(value)
