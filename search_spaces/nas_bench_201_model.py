"""The network of NAS-Bench-201: a stem, three stages of five cells with halvings between, a readout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from search_spaces.heads import ImageHead
from search_spaces.nas_bench_201 import CELLS_PER_STAGE, EDGES, KERNELS, WIDTHS, CellSpec, Operation


class Cut(nn.Module):
    """Zeros of the input's shape, still part of the graph."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x.mul(0.0)


def activated_convolution(channels: int, out_channels: int, *, size: int, stride: int = 1) -> nn.Sequential:
    """Activation, convolution and norm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, out_channels, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def make_operation(operation: Operation, width: int) -> nn.Module:
    """What an edge does: (B, width, H, W) to the same."""
    if operation in KERNELS:
        return activated_convolution(width, width, size=KERNELS[operation])
    if operation == "avg_pool3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity() if operation == "skip" else Cut()


class Cell(nn.Module):
    """A node is the sum of what its edges bring: (B, width, H, W) to the same."""

    def __init__(self, spec: CellSpec, width: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(make_operation(operation, width) for operation in spec.operations)

    def forward(self, x: Tensor) -> Tensor:
        """The last node."""
        nodes = [x]
        for node in range(1, EDGES[-1][1] + 1):
            brought = [
                edge(nodes[start])
                for (start, end), edge in zip(EDGES, self.edges, strict=True)
                if end == node
            ]
            nodes.append(reduce(torch.add, brought))
        return nodes[-1]


class Reduction(nn.Module):
    """A residual block that halves the image: (B, C, H, W) to (B, C', H / 2, W / 2)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            activated_convolution(channels, out_channels, size=3, stride=2),
            activated_convolution(out_channels, out_channels, size=3),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Branch plus shortcut."""
        out: Tensor = self.shortcut(x) + self.branch(x)
        return out


class CellNetwork(nn.Module):
    """The convolutional network around a cell."""

    def __init__(self, spec: CellSpec, *, head: ImageHead) -> None:
        super().__init__()
        self.name = head.name
        self.stem = nn.Sequential(
            nn.Conv2d(head.channels, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0])
        )
        layers: list[nn.Module] = []
        for stage, width in enumerate(WIDTHS):
            if stage:
                layers.append(Reduction(WIDTHS[stage - 1], width))
            layers += [Cell(spec, width) for _ in range(CELLS_PER_STAGE)]
        self.cells = nn.Sequential(*layers)
        last = WIDTHS[-1]
        self.features = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.readout = nn.Linear(last, head.classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Images (B, channels, height, width) to logits (B, classes)."""
        x = self.features(self.cells(self.stem(inputs[self.name])))
        return {self.name: self.readout(x.flatten(1))}
