"""What of one convolutional network another contains, and where the channels of its stages go."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING

from search_spaces.convnet_spec import NORM_GROUP
from search_spaces.inheritance import Inheritance, judged

if TYPE_CHECKING:
    from search_spaces.convnet import ConvSpace
    from search_spaces.convnet_spec import ConvSpec, ConvStage

NEW = -1


def relation(_space: ConvSpace, old: ConvSpec, new: ConvSpec) -> Inheritance:
    """What a child of spec `new` inherits from a parent of spec `old`."""
    lacks, bends = [], []
    for index, (one, other) in enumerate(zip_longest(old.stages, new.stages)):
        where = f"stages[{index}]"
        if other is None:
            lacks.append(f"{where}: missing, the parent has one")
        elif one is None:
            bends.append(f"{where}: the parent has none, and sees larger images in the end")
        else:
            lacks += [f"{where}.{reason}" for reason in _lacks(one, other)]
            if one.expansion == 1 < other.expansion:
                bends.append(f"{where}.expansion: {other.expansion}, the parent doesn't widen")
    return judged(lacks, bends)


def _lacks(old: ConvStage, new: ConvStage) -> list[str]:
    lacks = [
        f"{name}: {getattr(new, name)}, the parent has {getattr(old, name)}"
        for name in ("depth", "width", "kernel_size", "hidden")
        if getattr(new, name) < getattr(old, name)
    ]
    if new.expansion == 1 < old.expansion:
        lacks.append(f"expansion: 1, the parent has {old.expansion}")
    if has_same_blocks(old, new) and new.hidden >= old.hidden and place_hidden(old, new) is None:
        lacks.append(f"groups: {new.groups} of {new.hidden}, the parent has {old.groups} of {old.hidden}")
    if old.squeeze_excite and not new.squeeze_excite:
        lacks.append("squeeze_excite: False, the parent has it")
    if new.downsample != old.downsample and (old.downsample, new.downsample) != ("avg", "conv"):
        lacks.append(f"downsample: {new.downsample}, the parent has {old.downsample}")
    return lacks


def has_same_blocks(old: ConvStage, new: ConvStage) -> bool:
    """Whether both stages' blocks widen their channels, or neither's do."""
    return (old.expansion == 1) == (new.expansion == 1)


def place_hidden(old: ConvStage, new: ConvStage) -> tuple[int, ...] | None:
    """The parent's channel in each of the child's within a block, -1 is new; None where there is no room.

    Channels that are filtered together stay so, and so do those that are normalised together. Runs of both
    kinds of groups are put one after another, each where it fits first.
    """
    size, new_size = old.hidden // old.groups, new.hidden // new.groups
    run = math.lcm(size, NORM_GROUP)
    source, free = [NEW] * new.hidden, 0
    for start in range(0, old.hidden, run):
        places = range(free, new.hidden - run + 1, NORM_GROUP)
        at = next((at for at in places if _fits(range(at, at + run, size), size, new_size)), None)
        if at is None:
            return None
        source[at : at + run] = range(start, start + run)
        free = at + run
    return tuple(source)


def _fits(starts: range, size: int, new_size: int) -> bool:
    """Whether every group that starts there is within one of the child's."""
    return all(start // new_size == (start + size - 1) // new_size for start in starts)
