"""The space of NAS-Bench-201: a cell of four nodes and six edges, fifteen times in a network for CIFAR-10.

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
ICLR 2020.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

from search_spaces.heads import ImageHead
from search_spaces.per_sample import PerSample
from search_spaces.sizes import problems_of_choice, refuse
from search_spaces.space import Sample, Suggest

if TYPE_CHECKING:
    from torch import nn

Operation = Literal["none", "skip", "conv1x1", "conv3x3", "avg_pool3x3"]

# From node, to node: the order of the digits of an `id`.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
KERNELS: dict[Operation, int] = {"conv1x1": 1, "conv3x3": 3}
WIDTHS = (16, 32, 64)
CELLS_PER_STAGE = 5
CIFAR10 = ImageHead(name="cifar10", classes=10, channels=3, height=32, width=32)


@dataclass(frozen=True, kw_only=True, slots=True)
class CellSpec:
    """One cell: the operation of each edge, in the order of `EDGES`."""

    operations: tuple[Operation, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.operations, tuple) or len(self.operations) != len(EDGES):
            raise ValueError(f"operations: {self.operations!r}, expected a tuple of {len(EDGES)}")
        refuse(
            [
                problem
                for index, operation in enumerate(self.operations)
                for problem in problems_of_choice(f"operations[{index}]", operation, get_args(Operation))
            ]
        )


@dataclass(frozen=True, kw_only=True)
class NasBench201:
    """5^6 cells. An `id` of the table has a digit for each edge, the operation's place in `Operation`.

    150 rows of the table hold the `params_M` of another cell, one convolution more or less: so the source
    has it, whose runs of one id are not always of one cell. The price is of the cell that the id says.

    Attributes:
        head: the image task; its sides are multiples of 4.
    """

    head: ImageHead = CIFAR10

    key_columns: ClassVar[tuple[str, ...]] = ("id",)
    score_column: ClassVar[str] = "val_acc"
    direction: ClassVar[Literal["maximize", "minimize"]] = "maximize"

    def __post_init__(self) -> None:
        if self.head.height % 4 or self.head.width % 4:
            size = (self.head.height, self.head.width)
            raise ValueError(f"head: images of {size}, expected sides that are multiples of 4")

    @property
    def heads(self) -> tuple[ImageHead, ...]:
        """The one head."""
        return (self.head,)

    def suggest(self, trial: Suggest) -> CellSpec:
        """Choose the operation of each edge."""
        operations = [
            trial.suggest_categorical(f"edge_{start}_{end}", get_args(Operation)) for start, end in EDGES
        ]
        return CellSpec(operations=cast("tuple[Operation, ...]", tuple(operations)))

    def per_sample(self, spec: CellSpec) -> PerSample:
        """Exact parameters and FLOPs of every convolution, also of one whose result is never read.

        `kept_bytes` holds, in float32, a convolution's input and output, and a node that is pooled.
        """
        head, pixels = self.head, self.head.height * self.head.width
        params, macs = head.channels * WIDTHS[0] * 9, head.channels * WIDTHS[0] * 9 * pixels
        kept = (head.channels + WIDTHS[0]) * pixels
        for stage, width in enumerate(WIDTHS):
            weights = CELLS_PER_STAGE * _weights_of_cell(spec, width)
            params += weights + CELLS_PER_STAGE * 2 * width * _convolutions(spec)
            macs += weights * (pixels >> 2 * stage)
            kept += CELLS_PER_STAGE * _kept_by_cell(spec, width, pixels >> 2 * stage)
            if stage:
                halved = WIDTHS[stage - 1] * width * 9 + width**2 * 9 + WIDTHS[stage - 1] * width
                params += halved + 4 * width
                macs += halved * (pixels >> 2 * stage)
                kept += _kept_by_reduction(width, pixels >> 2 * stage)
        last = WIDTHS[-1]
        kept += last * (2 * (pixels >> 4) + 3) + 2 * WIDTHS[0] + 3 * head.classes
        return PerSample(
            params=params + 2 * WIDTHS[0] + 2 * last + (last + 1) * head.classes,
            forward_flops=2 * (macs + last * head.classes),
            kept_bytes=4 * kept,
        )

    def samples(self) -> dict[str, Sample]:
        """One image."""
        head = self.head
        return {head.name: Sample(shape=(head.channels, head.height, head.width), dtype="float32")}

    def build(self, spec: CellSpec) -> nn.Module:
        """Build the network on the current default device."""
        # Prices and look-ups run without torch: only a build may load it.
        model = importlib.import_module("search_spaces.nas_bench_201_model")
        return cast("nn.Module", model.CellNetwork(spec, head=self.head))

    def key(self, spec: CellSpec) -> tuple[str]:
        """The table's `id`."""
        return ("".join(str(get_args(Operation).index(operation)) for operation in spec.operations),)

    def spec(self, key: tuple[str, ...]) -> CellSpec:
        """Read a spec back from its `id`."""
        return CellSpec(operations=tuple(get_args(Operation)[int(digit)] for digit in key[0]))

    def score(self, value: float) -> float:
        """Accuracy as a share, from the table's per cent."""
        return value / 100


def _convolutions(spec: CellSpec) -> int:
    return sum(operation in KERNELS for operation in spec.operations)


def _weights_of_cell(spec: CellSpec, width: int) -> int:
    return sum((KERNELS[operation] * width) ** 2 for operation in spec.operations if operation in KERNELS)


def _kept_by_cell(spec: CellSpec, width: int, pixels: int) -> int:
    """Numbers: of a convolution its input after the activation, its output, and the norm's statistics."""
    pooled = {
        start
        for (start, _), operation in zip(EDGES, spec.operations, strict=True)
        if operation == "avg_pool3x3"
    }
    return width * (_convolutions(spec) * (2 * pixels + 2) + len(pooled) * pixels)


def _kept_by_reduction(width: int, pixels: int) -> int:
    """Numbers of a block that halves the image to this many pixels and doubles the channels to this width."""
    entering = width // 2 * 4 * pixels
    # The activated input and the input itself (pooled in the shortcut), then the pooled, and in the branch
    # the first output, that activated, the second output, with the statistics of two norms.
    return 2 * entering + width // 2 * pixels + width * (3 * pixels + 4)
