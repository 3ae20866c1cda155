"""Weights as named tensors: listed, put into a model, written and read as safetensors, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from rsi_ray.errors import ChampionError
from safety import ArtifactError, artifact_of
from search_spaces.first_weights import distinct

if TYPE_CHECKING:
    from rsi_ray.manifest import Manifest

__all__ = ["distinct", "load_weights", "model_of", "put_weights", "read_weights", "tensors_of", "weights_of"]


def put_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model of the same architecture.

    Raises:
        ValueError: a tensor is missing, too many, or of another shape or type; nothing is changed.
    """
    own = dict(distinct(model))
    for name in sorted(own.keys() | weights.keys()):
        has, given = own.get(name), weights.get(name)
        if has is None or given is None or (has.shape, has.dtype) != (given.shape, given.dtype):
            raise ValueError(f"{name}: {_told(given)}, expected {_told(has)}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def _told(tensor: Tensor | None) -> str:
    return (
        "none" if tensor is None else f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
    )


def read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; a pickle is never loaded.

    Args:
        path: of the file.
        digest: SHA-256 of its bytes, which are read once, in hex.

    Raises:
        ArtifactError: it is another file, a link, or no safetensors; in one line.
    """
    content = artifact_of(path, digest)
    try:
        return load(content)
    except SafetensorError as error:
        raise ArtifactError(f"artifact {path}: no safetensors: {error}") from None


def load_weights(model: nn.Module, path: Path, digest: str) -> None:
    """Put the weights of a safetensors file into a model of the architecture that it is said to be of.

    Raises:
        ArtifactError: see `read_weights`; or it is of another architecture.
    """
    weights = read_weights(path, digest)
    try:
        put_weights(model, weights)
    except ValueError as error:
        raise ArtifactError(f"artifact {path}: {error}") from None


def weights_of(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as a safetensors file, whatever devices its tensors are on.

    Tensors that share their memory are written one by one; a model that ties them reads both alike.
    """
    own = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    return save(own)


def tensors_of(content: bytes, *, source: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ChampionError: it is none.
    """
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ChampionError(f"weights {source}: expected a safetensors file: {error}") from None


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
