"""What a child takes over from its parent's weights, and why it isn't more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["exact", "closest", "partial", "none"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inheritance:
    """How a child begins.

    Attributes:
        kind: "exact": the child computes what its parent does, dropout off. "closest": it contains its
            parent, but no exact map exists. "partial": it doesn't contain its parent, and takes what fits.
            "none": its weights are fresh.
        reasons: why the child isn't exact, one line each: where, and what stands against it.
    """

    kind: Kind
    reasons: tuple[str, ...] = ()


def judged(lacks: Sequence[str], bends: Sequence[str]) -> Inheritance:
    """Judge by what the child lacks of its parent, and by what it has in a way that no map makes exact."""
    kind: Kind = "partial" if lacks else "closest" if bends else "exact"
    return Inheritance(kind=kind, reasons=(*lacks, *bends))
