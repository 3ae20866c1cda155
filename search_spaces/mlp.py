"""Multilayer perceptrons for tables, with one shared backbone and one head per task."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, cast, get_args

from search_spaces.choices import choose, choose_size
from search_spaces.cost import Cost
from search_spaces.dropout import problems_of_dropout, problems_of_dropouts
from search_spaces.heads import TableHead, problems_of_heads
from search_spaces.sizes import (
    problems_of_choice,
    problems_of_choices,
    problems_of_range,
    problems_of_size,
    problems_of_sizes,
    refuse,
)
from search_spaces.space import Sample, Suggest

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Activation", "MLPNorm", "MLPSpace", "MLPSpec", "TableHead"]

Activation = Literal["relu", "gelu", "silu", "swiglu"]
MLPNorm = Literal["none", "layernorm"]

KEPT_PER_ACTIVATION = {"relu": 1, "gelu": 1, "silu": 1, "swiglu": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class MLPSpec:
    """One architecture; what exists is consistent, so it can be priced and built.

    `widths` has one hidden layer each. `norm` is of every hidden layer's output, before it is read.
    `dropout` is of what every hidden layer adds. `residual` adds a hidden layer's input to its output
    wherever both have one width.
    """

    widths: tuple[int, ...]
    activation: Activation
    norm: MLPNorm
    residual: bool
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.widths, tuple) or not self.widths:
            problems = [f"widths: {self.widths!r}, expected a tuple of one or more integers"]
        else:
            problems = [problem for width in self.widths for problem in problems_of_size("widths", width)]
        problems += problems_of_choice("activation", self.activation, get_args(Activation))
        problems += problems_of_choice("norm", self.norm, get_args(MLPNorm))
        problems += problems_of_choice("residual", self.residual, (False, True))
        problems += problems_of_dropout("dropout", self.dropout)
        if not problems and self.residual and not has_equal_neighbours(self.widths):
            problems = [f"residual: True, expected two layers of one width on end, found {self.widths}"]
        refuse(problems)


def has_equal_neighbours(widths: tuple[int, ...]) -> bool:
    """Whether a hidden layer is as wide as the one before it."""
    return any(before == width for before, width in pairwise(widths))


@dataclass(frozen=True, kw_only=True)
class MLPSpace:
    """The multilayer perceptrons that a sampler may propose for these table heads.

    Attributes:
        heads: the tasks; all share the backbone, and so the number of features.
        batch_size: samples of every head in one training step.
        depth: fewest and most hidden layers.
        widths: units of a hidden layer.
        activations: the variants offered; swiglu multiplies by a gate, from a second matrix.
        norms: the variants offered, of every hidden layer's output.
        residual: whether layers of one width on end are added up; asked only where there are such.
        dropouts: shares of a layer's units that training sets to zero, each at least 0 and less than 1.
    """

    heads: tuple[TableHead, ...]
    batch_size: int
    depth: tuple[int, int] = (1, 6)
    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    activations: tuple[Activation, ...] = ("relu", "gelu", "silu", "swiglu")
    norms: tuple[MLPNorm, ...] = ("none", "layernorm")
    residual: tuple[bool, ...] = (True, False)
    dropouts: tuple[float, ...] = (0.0, 0.1, 0.3)

    def __post_init__(self) -> None:
        refuse(
            [
                *problems_of_heads(self.heads, TableHead, same="features"),
                *problems_of_size("batch_size", self.batch_size),
                *problems_of_range("depth", self.depth),
                *problems_of_sizes("widths", self.widths),
                *problems_of_choices("activations", self.activations, get_args(Activation)),
                *problems_of_choices("norms", self.norms, get_args(MLPNorm)),
                *problems_of_choices("residual", self.residual, (False, True)),
                *problems_of_dropouts("dropouts", self.dropouts),
            ]
        )

    def suggest(self, trial: Suggest) -> MLPSpec:
        """Choose a spec; a layer's width, whose name ends in its index, is asked only where it exists."""
        depth = choose_size(trial, "depth", self.depth)
        widths = tuple(choose(trial, f"width_{index}", self.widths) for index in range(depth))
        return MLPSpec(
            widths=widths,
            activation=choose(trial, "activation", self.activations),
            norm=choose(trial, "norm", self.norms),
            residual=has_equal_neighbours(widths) and choose(trial, "residual", self.residual),
            dropout=choose(trial, "dropout", self.dropouts),
        )

    def cost(self, spec: MLPSpec) -> Cost:
        """Price the spec in exact integers.

        `forward_flops` is one sample of every head through the backbone and its readout. Counted: matrix
        products, 1 multiply-accumulate = 2 FLOPs. Left out: biases, norms, activations.
        `train_step_flops` is exact: batch_size x (3 x forward_flops - those of the first layer), since a
        backward is two products of the forward's size, and nothing needs the gradient of the table.
        `memory_bytes` is, in float32, 16 bytes a parameter (weight, gradient, Adam's two moments), and 4
        bytes for each value that the forward of one batch of every head keeps for the backward.
        """
        features, outputs, heads = self.heads[0].features, self._outputs, len(self.heads)
        matrices = 2 if spec.activation == "swiglu" else 1
        norm = 1 if spec.norm == "layernorm" else 0
        units, last = sum(spec.widths), spec.widths[-1]
        products = sum(before * width for before, width in pairwise((features, *spec.widths)))
        first = heads * matrices * features * spec.widths[0]
        macs = heads * matrices * products + last * outputs
        params = matrices * (products + units) + 2 * norm * units + (last + 1) * outputs
        per_unit = 1 + KEPT_PER_ACTIVATION[spec.activation] + norm + (1 if spec.dropout else 0)
        # A norm also keeps its mean and its deviation, a loss the softmax and its gradient.
        kept = heads * (features + per_unit * units + 2 * norm * len(spec.widths)) + 3 * outputs
        return Cost(
            params=params,
            forward_flops=2 * macs,
            train_step_flops=self.batch_size * (6 * macs - 2 * first),
            memory_bytes=16 * params + 4 * self.batch_size * kept,
        )

    @cached_property
    def _outputs(self) -> int:
        return sum(head.outputs for head in self.heads)

    def samples(self) -> dict[str, Sample]:
        """One row for every head."""
        return {head.name: Sample(shape=(head.features,), dtype="float32") for head in self.heads}

    def build(self, spec: MLPSpec) -> nn.Module:
        """Build the model on the current default device."""
        # Samplers, the governor and the price list run without torch: only a build may load it.
        model = importlib.import_module("search_spaces.mlp_model")
        return cast("nn.Module", model.MLP(spec, heads=self.heads))
