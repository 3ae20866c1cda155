"""Task heads: how one task reads out the backbone that it shares with the others."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.sizes import problems_of_choice, problems_of_name, problems_of_size, refuse


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """One task's readout of a backbone for tokens.

    Attributes:
        name: the task, a Python identifier.
        classes: number of logits.
        length: tokens in one sample.
        dense: logits at every position (language modelling), or only at the last one (classification).
    """

    name: str
    classes: int
    length: int
    dense: bool

    def __post_init__(self) -> None:
        sizes = _problems_of_sizes(self, "classes", "length")
        refuse(sizes + problems_of_choice("dense", self.dense, (False, True)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageHead:
    """One task's readout of a backbone for images.

    Attributes:
        name: the task, a Python identifier.
        classes: number of logits.
        channels: numbers of one pixel.
        height, width: pixels of one sample.
    """

    name: str
    classes: int
    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        refuse(_problems_of_sizes(self, "classes", "channels", "height", "width"))


@dataclass(frozen=True, kw_only=True, slots=True)
class TableHead:
    """One task's readout of a backbone for rows of a table.

    Attributes:
        name: the task, a Python identifier.
        outputs: number of logits of a classification, or of numbers of a regression.
        features: numbers of one row.
    """

    name: str
    outputs: int
    features: int

    def __post_init__(self) -> None:
        refuse(_problems_of_sizes(self, "outputs", "features"))


def _problems_of_sizes(head: Head | ImageHead | TableHead, *fields: str) -> list[str]:
    problems = problems_of_name("name", head.name)
    return problems + [p for field in fields for p in problems_of_size(field, getattr(head, field))]


def problems_of_heads(heads: object, kind: type, *, same: str | None = None) -> list[str]:
    """One or more heads of this kind, each with a name of its own; `same` names a field they must share."""
    if not isinstance(heads, tuple) or not heads or not all(isinstance(head, kind) for head in heads):
        return [f"heads: {heads!r}, expected a tuple of one or more {kind.__name__}"]
    problems = []
    names = [head.name for head in heads]
    if len(set(names)) < len(names):
        problems.append(f"heads: {names}, expected a name of its own for each")
    if same and len({getattr(head, same) for head in heads}) > 1:
        found = [getattr(head, same) for head in heads]
        problems.append(f"heads: {same} {found}, expected the same for all, who share the first layer")
    return problems
