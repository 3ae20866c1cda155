"""What of one multilayer perceptron another contains, and which of its layers are its parent's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from search_spaces.inheritance import Inheritance, judged

if TYPE_CHECKING:
    from search_spaces.mlp import MLPSpace, MLPSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """Which of the parent's layers each layer of the child is.

    Attributes:
        places: a layer of the parent for each of the child, or None where it is new; in order.
        lacks: what the child lacks of its parent.
        bends: what no map makes exact.
    """

    places: tuple[int | None, ...] = ()
    lacks: tuple[str, ...] = ()
    bends: tuple[str, ...] = ()


def relation(space: MLPSpace, old: MLPSpec, new: MLPSpec) -> Inheritance:
    """What a child of spec `new` inherits from a parent of spec `old`."""
    if (old.activation == "swiglu") != (new.activation == "swiglu"):
        reason = f"activation: {new.activation}, the parent's is {old.activation}, of other matrices"
        return Inheritance(kind="none", reasons=(reason,))
    lacks = [
        f"{name}: {getattr(new, name)}, the parent's is {getattr(old, name)}"
        for name in ("activation", "norm")
        if getattr(new, name) != getattr(old, name)
    ]
    alignment = align(old, new, features=space.heads[0].features)
    return judged([*lacks, *alignment.lacks], alignment.bends)


def is_residual(spec: MLPSpec, index: int) -> bool:
    """Whether this layer adds its input."""
    return spec.residual and index > 0 and spec.widths[index] == spec.widths[index - 1]


def is_mirrored(spec: MLPSpec, done: int) -> bool:
    """Whether a new layer after so many of the parent's carries its input with both signs, to pass it on.

    See `axis.mirrored`. A relu lets through again what one has let through, and a gate can be held open.
    """
    return spec.activation in ("gelu", "silu") or (spec.activation == "relu" and done == 0)


def align(old: MLPSpec, new: MLPSpec, *, features: int) -> Alignment:
    """The alignment that lacks least, then bends least; of equal ones that with new layers last."""
    depth, new_depth = len(old.widths), len(new.widths)
    if new_depth < depth:
        lack = f"depth: {new_depth}, the parent has {depth}"
        steps = [_take(old, new, index, index) for index in range(new_depth)]
        return _sum([Alignment(lacks=(lack,)), *steps])

    @cache
    def best(index: int, done: int) -> Alignment:
        if index == new_depth:
            return Alignment()
        options = []
        if done < depth:
            options.append(_sum([_take(old, new, done, index), best(index + 1, done + 1)]))
        if new_depth - index > depth - done:
            units = old.widths[done - 1] if done else features
            options.append(_sum([_add(new, done, index, units), best(index + 1, done)]))
        return min(options, key=lambda one: (len(one.lacks), len(one.bends)))

    return best(0, 0)


def _take(old: MLPSpec, new: MLPSpec, done: int, index: int) -> Alignment:
    """The child's layer `index` is the parent's `done`."""
    width, old_width, where = new.widths[index], old.widths[done], f"widths[{index}]"
    lacks, bends = [], []
    if width < old_width:
        lacks.append(f"{where}: {width}, the parent has {old_width}")
    if is_residual(old, done) != is_residual(new, index):
        adds = "adds its input, the parent's doesn't" if is_residual(new, index) else "doesn't add its input"
        lacks.append(f"residual: the layer of {where} {adds}")
    if new.norm == "layernorm" and width > old_width and width % old_width:
        bends.append(f"{where}: {width} is no multiple of the parent's {old_width}, as a layernorm needs")
    if new.norm == "layernorm" and index > done == 0:
        bends.append(f"{where}: a layernorm before what reads the table in the parent")
    return Alignment(places=(done,), lacks=tuple(lacks), bends=tuple(bends))


def _add(new: MLPSpec, done: int, index: int, units: int) -> Alignment:
    """The child's layer `index` is new, after so many layers of the parent, and has to pass on its units."""
    if is_residual(new, index):
        return Alignment(places=(None,))
    needed = 2 * units if is_mirrored(new, done) else units
    where = f"widths[{index}]"
    bends: tuple[str, ...] = ()
    if new.norm == "layernorm":
        bends = (f"{where}: a layer more that doesn't add its input, after a layernorm",)
    elif new.widths[index] < needed:
        bends = (f"{where}: {new.widths[index]}, a layer more needs {needed} to pass on its input",)
    return Alignment(places=(None,), bends=bends)


def _sum(steps: list[Alignment]) -> Alignment:
    def all_of(part: Callable[[Alignment], tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(reason for step in steps for reason in part(step))

    places = tuple(place for step in steps for place in step.places)
    return Alignment(places=places, lacks=all_of(lambda one: one.lacks), bends=all_of(lambda one: one.bends))
