"""Weights as safetensors, to and from torch; nothing else is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from rsi_ray.errors import ChampionError
from safety import ArtifactError, read_artifact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from rsi_ray.manifest import Manifest


def weights_of(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as a safetensors file, whatever devices its tensors are on.

    Tensors that share their memory are written one by one; a model that ties them reads both alike.
    """
    own = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    return save(own)


def load_weights(content: bytes, *, source: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ChampionError: it is none.
    """
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ChampionError(f"weights {source}: expected a safetensors file: {error}") from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file that is no link.

    Raises:
        ChampionError: it can't be read, or is anything else, such as a pickle; nothing in it is run.
    """
    try:
        content = read_artifact(path)
    except ArtifactError as error:
        raise ChampionError(str(error)) from None
    return load_weights(content, source=str(path))


def model_of(manifest: Manifest, weights: Mapping[str, Tensor]) -> nn.Module:
    """The model of a manifest, with weights that fit it exactly, in evaluation mode.

    Raises:
        ChampionError: it can't be rebuilt from here, or the weights are of another one.
    """
    space: Any = manifest.rebuilt_space()
    model: nn.Module = space.build(manifest.rebuilt_spec(space))
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ChampionError(
            f"weights of {manifest.lineage}, generation {manifest.generation}: {told:.300}"
        ) from None
    return model.eval()
