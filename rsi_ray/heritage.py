"""What a candidate inherits: the weights of the champion that it would follow, as far as they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from rsi_ray.weights import read_weights
from search_spaces.growth import Inheritance, inherit
from search_spaces.space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A champion whose weights candidates begin with.

    Attributes:
        weights: safetensors file.
        artifact: SHA-256 of that file, which is looked at again before it is used.
        config: its parameters, as the space asks them.
        spec: its architecture.
        train_flops: FLOPs of all its training, its ancestors' included.
        content: of the file, where workers can't read it; None where they can.
    """

    weights: Path
    artifact: str
    config: Mapping[str, Any]
    spec: Any
    train_flops: int
    content: bytes | None = field(default=None, repr=False)

    def give(self, space: SearchSpace[Any], spec: Any, model: nn.Module) -> Inheritance:
        """Put its weights into a model that was just built.

        Raises:
            ArtifactError: the file is not the one that was promoted.
        """
        weights = read_weights(self.weights, self.artifact, self.content)
        return inherit(space, self.spec, weights, spec, model)

    def about(self) -> dict[str, Any]:
        """What a run writes down of it."""
        return {
            "weights": str(self.weights),
            "artifact": self.artifact,
            "config": dict(self.config),
            "train_flops": self.train_flops,
        }
