"""A champion's weights in torch: from a model into safetensors, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from rsi_ray.champion_version import Version, content_of
from rsi_ray.errors import ChampionError

if TYPE_CHECKING:
    from collections.abc import Mapping


def weights_of(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as a safetensors file, whatever devices its tensors are on; tied ones are written each."""
    own = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    return save(own)


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a model that they fit exactly; of tied ones, one is enough.

    Raises:
        RuntimeError: one is missing, or of another name or shape.
    """
    missing, unexpected = model.load_state_dict(dict(weights), strict=False)
    own = model.state_dict(keep_vars=True)
    given = {id(own[name]) for name in weights if name in own}
    lacking = [name for name in missing if id(own[name]) not in given]
    if unexpected or lacking:
        raise RuntimeError(f"missing: {lacking}, unexpected: {unexpected}")


def model_of(version: Version) -> nn.Module:
    """A version's model with its weights, in evaluation mode.

    Raises:
        ChampionError: its file isn't what it was, or it can't be rebuilt from here.
    """
    manifest = version.manifest
    space: Any = manifest.rebuilt_space()
    try:
        model: nn.Module = space.build(manifest.rebuilt_spec(space))
        fill(model, load(content_of(version)))
    except (SafetensorError, RuntimeError, ValueError) as error:
        told = " ".join(str(error).split())
        raise ChampionError(f"version {version.name}: its model can't be rebuilt: {told:.300}") from None
    return model.eval()
