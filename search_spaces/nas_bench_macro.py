"""The space of NAS-Bench-Macro: a mobile network for CIFAR-10 with eight places of three blocks each.

Source: Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

from search_spaces.heads import ImageHead
from search_spaces.per_sample import PerSample
from search_spaces.sizes import problems_of_choice, refuse
from search_spaces.space import Sample, Suggest

if TYPE_CHECKING:
    from torch import nn

Block = Literal["identity", "mb3_k3", "mb6_k5"]

# Expansion ratio and kernel size.
BLOCKS: dict[Block, tuple[int, int]] = {"mb3_k3": (3, 3), "mb6_k5": (6, 5)}
STAGES = (2, 3, 3)
STEM = 32
FEATURES = 1280
CIFAR10 = ImageHead(name="cifar10", classes=10, channels=3, height=32, width=32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a block stands: the first of a stage doubles the channels and halves the image."""

    channels: int
    out_channels: int
    stride: int


@cache
def places() -> tuple[Place, ...]:
    """The eight places, in the order of the network."""
    found, channels = [], STEM
    for blocks in STAGES:
        found.append(Place(channels=channels, out_channels=2 * channels, stride=2))
        channels *= 2
        found += [Place(channels=channels, out_channels=channels, stride=1)] * (blocks - 1)
    return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class MacroSpec:
    """One network: the block of each place."""

    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.blocks, tuple) or len(self.blocks) != sum(STAGES):
            raise ValueError(f"blocks: {self.blocks!r}, expected a tuple of {sum(STAGES)}")
        refuse(
            [
                problem
                for index, block in enumerate(self.blocks)
                for problem in problems_of_choice(f"blocks[{index}]", block, get_args(Block))
            ]
        )


@dataclass(frozen=True, kw_only=True)
class NasBenchMacro:
    """3^8 networks. An `arch` of the table has a digit for each place: 0 identity, 1 mb3_k3, 2 mb6_k5.

    The table says the same accuracy for networks that differ only in where the identities of a stage stand
    behind its first block: the source trained one of them.

    Attributes:
        head: the image task.
    """

    head: ImageHead = CIFAR10

    key_columns: ClassVar[tuple[str, ...]] = ("arch",)
    score_column: ClassVar[str] = "mean_acc"
    direction: ClassVar[Literal["maximize", "minimize"]] = "maximize"

    @property
    def heads(self) -> tuple[ImageHead, ...]:
        """The one head."""
        return (self.head,)

    def suggest(self, trial: Suggest) -> MacroSpec:
        """Choose the block of each place."""
        blocks = [trial.suggest_categorical(f"block_{i}", get_args(Block)) for i in range(sum(STAGES))]
        return MacroSpec(blocks=cast("tuple[Block, ...]", tuple(blocks)))

    def per_sample(self, spec: MacroSpec) -> PerSample:
        """Exact parameters and FLOPs: convolutions and the readout; norms, activations, pooling are free.

        `kept_bytes` holds, in float32, every convolution's input and output and the readout's input.
        """
        count = _Count(height=self.head.height, width=self.head.width)
        count.convolve(self.head.channels, STEM, size=3)
        for block, place in zip(spec.blocks, places(), strict=True):
            count.add_block(block, place)
        count.convolve(places()[-1].out_channels, FEATURES)
        count.kept += FEATURES * (count.height * count.width + 1) + 3 * self.head.classes
        return PerSample(
            params=count.params + (FEATURES + 1) * self.head.classes,
            forward_flops=2 * (count.macs + FEATURES * self.head.classes),
            kept_bytes=4 * count.kept,
        )

    def samples(self) -> dict[str, Sample]:
        """One image."""
        head = self.head
        return {head.name: Sample(shape=(head.channels, head.height, head.width), dtype="float32")}

    def build(self, spec: MacroSpec) -> nn.Module:
        """Build the network on the current default device."""
        # Prices and look-ups run without torch: only a build may load it.
        model = importlib.import_module("search_spaces.nas_bench_macro_model")
        return cast("nn.Module", model.MacroNetwork(spec, head=self.head))

    def key(self, spec: MacroSpec) -> tuple[str]:
        """The table's `arch`."""
        return ("".join(str(get_args(Block).index(block)) for block in spec.blocks),)

    def spec(self, key: tuple[str, ...]) -> MacroSpec:
        """Read a spec back from its `arch`."""
        return MacroSpec(blocks=tuple(get_args(Block)[int(digit)] for digit in key[0]))

    def score(self, value: float) -> float:
        """Accuracy as a share, from the table's per cent."""
        return value / 100


@dataclass(kw_only=True)
class _Count:
    """Sums over the layers, and the image's size where the count has come to."""

    height: int
    width: int
    params: int = 0
    macs: int = 0
    kept: int = 0

    def convolve(
        self, channels: int, out_channels: int, *, size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        weights = channels // groups * out_channels * size**2
        self.kept += channels * self.height * self.width
        self.height, self.width = -(-self.height // stride), -(-self.width // stride)
        self.params += weights + 2 * out_channels
        self.macs += weights * self.height * self.width
        # Two more numbers a channel: the norm's mean and deviation.
        self.kept += out_channels * (self.height * self.width + 2)

    def add_block(self, block: Block, place: Place) -> None:
        if block == "identity":
            if place.stride != 1:
                self.convolve(place.channels, place.out_channels, stride=place.stride)
            return
        ratio, size = BLOCKS[block]
        hidden = ratio * place.channels
        self.convolve(place.channels, hidden)
        self.convolve(hidden, hidden, size=size, stride=place.stride, groups=hidden)
        self.convolve(hidden, place.out_channels)
