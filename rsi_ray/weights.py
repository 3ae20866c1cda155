"""A model's weights as named tensors: listed, put in, and read from a file of a known digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from rsi_ray.tensor_file import kinds_of
from safety import ArtifactError, read_artifact, same_artifact
from search_spaces.first_weights import distinct

__all__ = ["distinct", "load_weights", "put_weights", "read_weights"]


def _whole(weights: Tensor, _: Tensor) -> Tensor:
    return weights


def check_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights of another architecture than a model's, which may be on the meta device.

    Raises:
        ValueError: a tensor is missing, too many, or of another shape or type.
    """
    own = dict(distinct(model))
    for name in sorted(own.keys() | weights.keys()):
        has, given = own.get(name), weights.get(name)
        if has is None or given is None or (has.shape, has.dtype) != (given.shape, given.dtype):
            raise ValueError(f"{name}: {_told(given)}, expected {_told(has)}")


def put_weights(
    model: nn.Module, weights: Mapping[str, Tensor], part: Callable[[Tensor, Tensor], Tensor] = _whole
) -> None:
    """Copy weights into a model of the same architecture.

    Args:
        model: is changed.
        weights: by name.
        part: of a tensor, what this process puts into its own; all of it if left out.

    Raises:
        ValueError: see `check_weights`; nothing is changed.
    """
    check_weights(model, kinds_of(weights))
    with torch.no_grad():
        for name, tensor in distinct(model):
            tensor.copy_(part(weights[name], tensor))


def _told(tensor: Tensor | None) -> str:
    return (
        "none" if tensor is None else f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
    )


def read_weights(path: Path, digest: str, content: bytes | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; a pickle is never loaded.

    Args:
        path: of the file.
        digest: SHA-256 of its bytes, which are read once, in hex.
        content: of the file, where it isn't on this machine.

    Raises:
        ArtifactError: it is another file, a link, or no safetensors; in one line.
    """
    return tensors_of(path, read_content(path, digest, content))


def read_content(path: Path, digest: str, content: bytes | None = None) -> bytes:
    """The bytes of a file of a known digest, as `read_weights` finds them."""
    return read_artifact(path, digest) if content is None else same_artifact(path, content, digest)


def tensors_of(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors of a file's bytes; its path names it where they are none."""
    try:
        return load(content)
    except SafetensorError as error:
        raise ArtifactError(f"artifact {path}: no safetensors: {error}") from None


def load_weights(model: nn.Module, path: Path, digest: str, content: bytes | None = None) -> None:
    """Put the weights of a safetensors file into a model of the architecture that it is said to be of.

    Raises:
        ArtifactError: see `read_weights`; or it is of another architecture.
    """
    weights = read_weights(path, digest, content)
    try:
        put_weights(model, weights)
    except ValueError as error:
        raise ArtifactError(f"artifact {path}: {error}") from None
