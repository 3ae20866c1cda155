"""The network of NAS-Bench-Macro: a stem, three stages of searched blocks that halve the image, a readout."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from search_spaces.heads import ImageHead
from search_spaces.nas_bench_macro import BLOCKS, FEATURES, STEM, Block, MacroSpec, places


def convolution(
    channels: int, out_channels: int, *, size: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution that keeps the image's size but for the stride, and its norm."""
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, size, stride=stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class InvertedResidual(nn.Module):
    """Widen, filter every channel alone, narrow: (B, C, H, W) to (B, C', H / stride, W / stride).

    At stride 1, C' is C.
    """

    def __init__(self, channels: int, out_channels: int, *, stride: int, ratio: int, size: int) -> None:
        super().__init__()
        hidden = ratio * channels
        self.layers = nn.Sequential(
            convolution(channels, hidden),
            nn.ReLU(),
            convolution(hidden, hidden, size=size, stride=stride, groups=hidden),
            nn.ReLU(),
            convolution(hidden, out_channels),
        )
        self.is_residual = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Add the input where the shape is kept."""
        out: Tensor = self.layers(x)
        return x + out if self.is_residual else out


def make_block(block: Block, channels: int, out_channels: int, stride: int) -> nn.Module:
    """A searched block; an identity that has to change the shape is a convolution of size 1."""
    if block == "identity":
        return nn.Identity() if stride == 1 else convolution(channels, out_channels, stride=stride)
    ratio, size = BLOCKS[block]
    return InvertedResidual(channels, out_channels, stride=stride, ratio=ratio, size=size)


class MacroNetwork(nn.Module):
    """The convolutional network that a spec describes."""

    def __init__(self, spec: MacroSpec, *, head: ImageHead) -> None:
        super().__init__()
        self.name = head.name
        self.stem = nn.Sequential(convolution(head.channels, STEM, size=3), nn.ReLU())
        self.blocks = nn.Sequential(
            *(
                make_block(block, place.channels, place.out_channels, place.stride)
                for block, place in zip(spec.blocks, places(), strict=True)
            )
        )
        last = places()[-1].out_channels
        self.features = nn.Sequential(convolution(last, FEATURES), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.readout = nn.Linear(FEATURES, head.classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Images (B, channels, height, width) to logits (B, classes)."""
        x = self.features(self.blocks(self.stem(inputs[self.name])))
        return {self.name: self.readout(x.flatten(1))}
