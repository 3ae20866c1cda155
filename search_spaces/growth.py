"""A child begins with its parent's weights: what it would inherit, and how they are filled in.

Growth is of weights alone. An optimizer's moments belong to the parent's weights and are not inherited: the
child's training begins with its own warm-up.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from search_spaces import convnet_relation, mlp_relation, transformer_relation
from search_spaces.convnet import ConvSpace
from search_spaces.inheritance import Inheritance, Kind
from search_spaces.measured import MeasuredSpace
from search_spaces.mlp import MLPSpace
from search_spaces.space import Grows
from search_spaces.transformer import TransformerSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from search_spaces.space import SearchSpace, SpecT

__all__ = ["Grows", "Inheritance", "Kind", "inherit", "relation"]

_RELATIONS: dict[type, Callable[[Any, Any, Any], Inheritance]] = {
    TransformerSpace: transformer_relation.relation,
    ConvSpace: convnet_relation.relation,
    MLPSpace: mlp_relation.relation,
}
# Loaded where weights are, since a relation needs no torch.
_GROWTHS: dict[type, str] = {
    TransformerSpace: "search_spaces.transformer_growth",
    ConvSpace: "search_spaces.convnet_growth",
    MLPSpace: "search_spaces.mlp_growth",
}


def relation(space: SearchSpace[SpecT], old_spec: SpecT, new_spec: SpecT) -> Inheritance:
    """What a child would inherit from its parent, by arithmetic alone: no torch, no allocation.

    Raises:
        TypeError: the space has one of the doors of `Grows` without the other.
    """
    inner = _unwrapped(space)
    if isinstance(inner, Grows):
        return inner.relation(old_spec, new_spec)
    for kind, own in _RELATIONS.items():
        if isinstance(inner, kind):
            return own(inner, old_spec, new_spec)
    _refuse_half(inner)
    return Inheritance(kind="none", reasons=(f"{type(inner).__name__}: a space without growth",))


def inherit(
    space: SearchSpace[SpecT],
    old_spec: SpecT,
    weights: Mapping[str, Tensor],
    new_spec: SpecT,
    model: nn.Module,
) -> Inheritance:
    """Fill a freshly built child with what it inherits; whatever is new keeps its fresh weights, or is zero.

    The fresh weights are the only randomness: the same model and parent make the same child.

    Args:
        space: of both.
        old_spec: the parent's.
        weights: the parent's state, tied weights once.
        new_spec: the child's.
        model: `space.build(new_spec)`, on any device; is filled in place.

    Raises:
        ValueError: the weights or the model are not those of their spec; nothing is changed.
        TypeError: the space has one of the doors of `Grows` without the other.
    """
    found, grow = relation(space, old_spec, new_spec), _growth_of(_unwrapped(space))
    if grow is None:
        return found
    filling = importlib.import_module("search_spaces.first_weights")
    filling.check(space, old_spec, weights, "weights")
    filling.check(space, new_spec, dict(filling.distinct(model)), "model")
    filling.fill(model, lambda parent, fresh: grow(old_spec, parent, new_spec, fresh), weights)
    return found


def _growth_of(space: object) -> Callable[..., Mapping[str, Tensor]] | None:
    if isinstance(space, Grows):
        return space.inherit
    for kind, module in _GROWTHS.items():
        if isinstance(space, kind):
            own = cast("Callable[..., Mapping[str, Tensor]]", importlib.import_module(module).inherit)
            return partial(own, space)
    return None


def _unwrapped(space: object) -> object:
    return space.inner if isinstance(space, MeasuredSpace) else space


def _refuse_half(space: object) -> None:
    for door, other in (("inherit", "relation"), ("relation", "inherit")):
        if callable(getattr(space, door, None)):
            raise TypeError(f"{type(space).__name__}: {door} without {other}; expected both, or neither")
