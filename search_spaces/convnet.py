"""Convolutional networks of inverted bottlenecks, with one shared backbone and one head per task."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast, get_args

from search_spaces.choices import choose, choose_among, choose_size, divisors
from search_spaces.convnet_spec import (
    NORM_GROUP,
    STEM_SIZE,
    ConvSpec,
    ConvStage,
    Downsample,
    problems_of_kernels,
    problems_of_widths,
)
from search_spaces.cost import Cost
from search_spaces.dropout import problems_of_dropouts
from search_spaces.heads import ImageHead, problems_of_heads
from search_spaces.sizes import (
    problems_of_choices,
    problems_of_range,
    problems_of_size,
    problems_of_sizes,
    refuse,
)
from search_spaces.space import Sample, Suggest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ConvSpace", "ConvSpec", "ConvStage", "ImageHead"]


@dataclass(frozen=True, kw_only=True)
class ConvSpace:
    """The convolutional networks that a sampler may propose for these image heads.

    Attributes:
        heads: the tasks; all share the backbone, and so the number of channels.
        batch_size: samples of every head in one training step.
        stages: fewest and most stages; fewer than the most where the smallest image can't be halved so often.
        depth: fewest and most blocks of a stage.
        widths: channels of a stage, multiples of 8.
        kernel_sizes: pixels of a block's convolution, odd.
        expansions: channels within a block, as multiples of the width.
        depthwise: whether a block's convolution filters every channel alone.
        groups: groups of a convolution that isn't depthwise; those that divide its channels are offered.
        squeeze_excite: whether a block weighs its channels by what it sees of the whole image.
        downsamples: how a stage halves the image: strided convolution, or pooling.
        dropouts: shares of the pooled features that training sets to zero, each at least 0 and less than 1.
    """

    heads: tuple[ImageHead, ...]
    batch_size: int
    stages: tuple[int, int] = (1, 4)
    depth: tuple[int, int] = (1, 3)
    widths: tuple[int, ...] = (16, 24, 32, 48, 64, 96)
    kernel_sizes: tuple[int, ...] = (3, 5)
    expansions: tuple[int, ...] = (1, 2, 4)
    depthwise: tuple[bool, ...] = (True, False)
    groups: tuple[int, ...] = (1, 2, 4)
    squeeze_excite: tuple[bool, ...] = (True, False)
    downsamples: tuple[Downsample, ...] = ("conv", "max", "avg")
    dropouts: tuple[float, ...] = (0.0, 0.2)

    def __post_init__(self) -> None:
        problems = [
            *problems_of_heads(self.heads, ImageHead, same="channels"),
            *problems_of_size("batch_size", self.batch_size),
            *problems_of_range("stages", self.stages),
            *problems_of_range("depth", self.depth),
        ]
        for name in ("widths", "kernel_sizes", "expansions", "groups"):
            problems += problems_of_sizes(name, getattr(self, name))
        for name in ("depthwise", "squeeze_excite"):
            problems += problems_of_choices(name, getattr(self, name), (False, True))
        problems += problems_of_choices("downsamples", self.downsamples, get_args(Downsample))
        problems += problems_of_dropouts("dropouts", self.dropouts)
        refuse(problems or self._problems_of_fit())

    def _problems_of_fit(self) -> list[str]:
        problems = problems_of_widths("widths", self.widths)
        problems += problems_of_kernels("kernel_sizes", self.kernel_sizes)
        if self.stages[0] > self.most_stages:
            problems.append(f"stages: {self.stages}, expected at least one number up to {self.most_stages}")
        if 1 not in self.groups:
            problems.append(f"groups: {self.groups}, expected 1 among them, for any number of channels")
        return problems

    @cached_property
    def most_stages(self) -> int:
        """Stages until the smallest image is a pixel high or wide."""
        return min(min(head.height, head.width).bit_length() for head in self.heads)

    def suggest(self, trial: Suggest) -> ConvSpec:
        """Choose the stages one by one; what a stage's name ends in is its index."""
        offered = (self.stages[0], min(self.stages[1], self.most_stages))
        count = choose_size(trial, "stages", offered)
        stages = tuple(self._suggest_stage(trial, index) for index in range(count))
        return ConvSpec(stages=stages, dropout=choose(trial, "dropout", self.dropouts))

    def _suggest_stage(self, trial: Suggest, index: int) -> ConvStage:
        width = choose(trial, f"width_{index}", self.widths)
        expansion = choose(trial, f"expansion_{index}", self.expansions)
        hidden = width * expansion
        # As many groups as channels is depthwise, which has a name of its own.
        divided = [groups for groups in divisors(hidden, self.groups) if groups < hidden]
        is_depthwise = choose(trial, f"depthwise_{index}", self.depthwise)
        return ConvStage(
            depth=choose_size(trial, f"depth_{index}", self.depth),
            width=width,
            kernel_size=choose(trial, f"kernel_size_{index}", self.kernel_sizes),
            expansion=expansion,
            groups=hidden if is_depthwise else choose_among(trial, f"groups_{index}", divided),
            squeeze_excite=choose(trial, f"squeeze_excite_{index}", self.squeeze_excite),
            downsample=choose(trial, f"downsample_{index}", self.downsamples) if index else None,
        )

    def cost(self, spec: ConvSpec) -> Cost:
        """Price the spec in exact integers.

        `forward_flops` is one sample of every head through the backbone and its readout. Counted:
        convolutions (padding as if it were image) and linears, 1 multiply-accumulate = 2 FLOPs. Left out:
        norms, activations, pooling, the weighing of channels.
        `train_step_flops` is exact: batch_size x (3 x forward_flops - those of the stem), since a backward
        is two products of the forward's size, and nothing needs the gradient of the image.
        `memory_bytes` is, in float32, 16 bytes a parameter (weight, gradient, Adam's two moments), and 4
        bytes for each value that the forward of one batch of every head keeps for the backward.

        Raises:
            ValueError: the smallest image can't be halved so often.
        """
        self._check_fits(spec)
        count = _Count(samples=len(self.heads))
        stem = self._count_stem(count, spec.stages[0].width)
        for index, stage in enumerate(spec.stages):
            if index:
                before = spec.stages[index - 1].width
                count.downsample(stage, before, self._pixels[index - 1], self._pixels[index])
            count.repeat_block(stage, self._pixels[index])
        self._count_readouts(count, spec)
        return Cost(
            params=count.params,
            forward_flops=2 * count.macs,
            train_step_flops=self.batch_size * (6 * count.macs - 2 * stem),
            memory_bytes=16 * count.params + 4 * self.batch_size * count.kept,
        )

    def _count_stem(self, count: _Count, width: int) -> int:
        channels = self.heads[0].channels
        count.multiply(channels * width * STEM_SIZE**2, self._pixels[0])
        count.kept += channels * self._pixels[0]
        return count.macs

    def _count_readouts(self, count: _Count, spec: ConvSpec) -> None:
        width, pixels = spec.stages[-1].width, self._pixels[len(spec.stages) - 1]
        classes = sum(head.classes for head in self.heads)
        count.normalise(width, pixels)
        count.multiply(width * classes, 1, biases=classes)
        # The pooled features, the mask of their dropout; the logits, their softmax and its gradient.
        count.kept += width * (pixels + len(self.heads) * (2 if spec.dropout else 1)) + 3 * classes

    @cached_property
    def _pixels(self) -> tuple[int, ...]:
        """Pixels of one image of every head, by stage."""
        levels = range(self.most_stages)
        return tuple(sum((h.height >> level) * (h.width >> level) for h in self.heads) for level in levels)

    def _check_fits(self, spec: ConvSpec) -> None:
        if len(spec.stages) > self.most_stages:
            raise ValueError(
                f"stages: {len(spec.stages)}, expected at most {self.most_stages} for the smallest image"
            )

    def samples(self) -> dict[str, Sample]:
        """One image for every head."""
        return {
            head.name: Sample(shape=(head.channels, head.height, head.width), dtype="float32")
            for head in self.heads
        }

    def build(self, spec: ConvSpec) -> nn.Module:
        """Build the model on the current default device.

        Raises:
            ValueError: the smallest image can't be halved so often.
        """
        self._check_fits(spec)
        # Samplers, the governor and the price list run without torch: only a build may load it.
        model = importlib.import_module("search_spaces.convnet_model")
        return cast("nn.Module", model.ConvNet(spec, heads=self.heads))


@dataclass(kw_only=True)
class _Count:
    """Sums over layers, for one sample of every head: `kept` is values that the backward needs."""

    samples: int
    params: int = 0
    macs: int = 0
    kept: int = 0

    def multiply(self, weights: int, times: int, *, biases: int = 0) -> None:
        self.params += weights + biases
        self.macs += weights * times

    def normalise(self, channels: int, pixels: int) -> None:
        self.params += 2 * channels
        # Its input, and the mean and the deviation of every group.
        self.kept += channels * pixels + 2 * self.samples * channels // NORM_GROUP

    def downsample(self, stage: ConvStage, before: int, pixels_before: int, pixels: int) -> None:
        self.normalise(before, pixels_before)
        self.kept += before * pixels_before
        self.multiply(before * stage.width * (4 if stage.downsample == "conv" else 1), pixels)
        # What was pooled, and for the maximum its 64-bit indices.
        self.kept += before * pixels * {"conv": 0, "avg": 1, "max": 3}[stage.downsample or "conv"]

    def repeat_block(self, stage: ConvStage, pixels: int) -> None:
        block = _Count(samples=self.samples)
        block.add_block(stage, pixels)
        self.params += stage.depth * block.params
        self.macs += stage.depth * block.macs
        self.kept += stage.depth * block.kept

    def add_block(self, stage: ConvStage, pixels: int) -> None:
        width, hidden = stage.width, stage.hidden
        self.kept += width * pixels
        if stage.expansion > 1:
            self.multiply(width * hidden, pixels)
            self.normalise(hidden, pixels)
            self.kept += hidden * pixels
        self.multiply(hidden // stage.groups * hidden * stage.kernel_size**2, pixels)
        self.normalise(hidden, pixels)
        self.kept += hidden * pixels
        if stage.squeeze_excite:
            self.multiply(2 * hidden * stage.squeezed, self.samples, biases=hidden + stage.squeezed)
            self.kept += hidden * pixels + self.samples * (2 * hidden + stage.squeezed)
        self.multiply(hidden * width, pixels)
        self.normalise(width, pixels)
