"""A model's weights by name, checked against its spec and filled in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace, SpecT


def distinct(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights and saved buffers by name, tied ones once: a safetensors file takes no aliases."""
    seen = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def check(space: SearchSpace[SpecT], spec: SpecT, weights: Mapping[str, Tensor], what: str) -> None:
    """Raise ValueError where the weights are not those of a model of this spec, by name and shape."""
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in distinct(space.build(spec))}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"{what}: {name} is {found.get(name, 'missing')}, the spec has {expected.get(name, 'none')}"
            )


def fill(
    model: nn.Module,
    grow: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]],
    parent: Mapping[str, Tensor],
) -> None:
    """Fill a model with what `grow` makes of the parent's weights and the model's own.

    Raises:
        ValueError: what `grow` makes are not the model's weights; nothing is changed.
    """
    own = dict(distinct(model))
    grown = grow(_precise(parent), _precise(own))
    wrong = [name for name in own if name not in grown or grown[name].shape != own[name].shape]
    if wrong or grown.keys() != own.keys():
        name = (wrong or sorted(grown.keys() - own.keys()))[0]
        raise ValueError(f"{name}: inherited in another shape than the model's, or not at all")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(grown[name])


def _precise(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in double precision: scales that are taken back elsewhere must not round on the way."""
    tensors = {name: tensor.detach().cpu() for name, tensor in weights.items()}
    return {name: one.double() if one.is_floating_point() else one for name, one in tensors.items()}
