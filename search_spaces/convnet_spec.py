"""Architectures of convolutional networks: stages of inverted bottlenecks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from search_spaces.dropout import problems_of_dropout
from search_spaces.sizes import problems_of_choice, problems_of_size, refuse

Downsample = Literal["conv", "max", "avg"]

NORM_GROUP = 8
"""Channels that are normalised together: more than one, so that one pixel of one image can be, too."""
STEM_SIZE = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvStage:
    """Blocks at one resolution; what exists is consistent.

    `downsample` halves the image before the blocks: a convolution of size and stride 2, or a pooling of that
    size before a convolution of size 1; None leaves it as it is. A block widens by `expansion`, convolves
    with `kernel_size` in `groups`, weighs the channels (`squeeze_excite`) and narrows; its input is added.
    """

    depth: int
    width: int
    kernel_size: int
    expansion: int
    groups: int
    squeeze_excite: bool
    downsample: Downsample | None

    def __post_init__(self) -> None:
        sizes = ("depth", "width", "kernel_size", "expansion", "groups")
        problems = [p for name in sizes for p in problems_of_size(name, getattr(self, name))]
        problems += problems_of_choice("squeeze_excite", self.squeeze_excite, (False, True))
        problems += problems_of_choice("downsample", self.downsample, (None, *get_args(Downsample)))
        refuse(problems or self._problems_of_division())

    def _problems_of_division(self) -> list[str]:
        problems = problems_of_widths("width", (self.width,))
        problems += problems_of_kernels("kernel_size", (self.kernel_size,))
        if self.hidden % self.groups:
            problems.append(f"groups: {self.groups}, expected a divisor of width x expansion {self.hidden}")
        return problems

    @property
    def hidden(self) -> int:
        """Channels within a block."""
        return self.width * self.expansion

    @property
    def squeezed(self) -> int:
        """Channels between the two layers that weigh the hidden ones."""
        return self.hidden // 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvSpec:
    """One architecture; every stage but the first is downsampled. `dropout` is of the pooled features."""

    stages: tuple[ConvStage, ...]
    dropout: float = 0.0

    def __post_init__(self) -> None:
        refuse(self._problems_of_stages() + problems_of_dropout("dropout", self.dropout))

    def _problems_of_stages(self) -> list[str]:
        stages = self.stages
        if not isinstance(stages, tuple) or not stages or not all(isinstance(s, ConvStage) for s in stages):
            return [f"stages: {stages!r}, expected a tuple of one or more ConvStage"]
        return [
            f"stages: {index} has downsample {stage.downsample!r}, expected None in the first and only there"
            for index, stage in enumerate(stages)
            if (stage.downsample is None) != (index == 0)
        ]


def problems_of_widths(name: str, widths: tuple[int, ...]) -> list[str]:
    """Sizes that can be normalised in groups."""
    return [f"{name}: {w}, expected a multiple of {NORM_GROUP}" for w in widths if w % NORM_GROUP]


def problems_of_kernels(name: str, sizes: tuple[int, ...]) -> list[str]:
    """Sizes that keep the image's size when padded by half."""
    return [f"{name}: {size}, expected an odd number of pixels" for size in sizes if size % 2 == 0]
