"""A multilayer perceptron's first weights from its parent's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.axis import Axis, added_to, copies, first, gain, joined, matrix, mirrored, vector
from search_spaces.mlp import MLPSpace, MLPSpec
from search_spaces.mlp_relation import align, is_mirrored, is_residual

Weights = Mapping[str, Tensor]

LIFT = 0.5
"""What a new relu layer adds to every unit of its stream: at 0 a relu has no gradient."""


def inherit(
    space: MLPSpace, old: MLPSpec, parent: Weights, new: MLPSpec, fresh: Weights
) -> dict[str, Tensor]:
    """The child's weights by name, from the parent's and fresh ones, all of them float64 on the CPU.

    New units carry anything and are read with zeros; where a layernorm reads them, every unit is copied.
    A new layer that adds its input begins by adding nothing, one that doesn't by passing it on.
    """
    if (old.activation == "swiglu") != (new.activation == "swiglu"):
        return dict(fresh)
    features = space.heads[0].features
    alignment = align(old, new, features=features)
    carried = _Carried(axis=first(features, features), units=features)
    growth = _Growth(old=old, new=new, parent=parent, fresh=fresh)
    child = dict(fresh)
    for index, place in enumerate(alignment.places):
        if place is not None:
            layer, carried = growth.take(carried, index, place)
        elif is_residual(new, index):
            layer, carried = growth.add_nothing(carried, index)
        else:
            layer, carried = growth.pass_on(carried, index)
        child |= layer
    left = range(len(new.widths), len(old.widths))
    if all(is_residual(old, index) for index in left):
        child |= growth.norm(f"backbone.{len(old.widths)}", f"backbone.{len(new.widths)}", carried.axis)
        for head in space.heads:
            name, outputs = f"readouts.to_{head.name}", first(head.outputs, head.outputs)
            child |= growth.linear(name, growth.of_parent(name), outputs, carried)
    return child


@dataclass(frozen=True, kw_only=True, slots=True)
class _Carried:
    """What a layer reads.

    Attributes:
        axis: where the parent's units are.
        units: how many those are.
        layers: of the parent, that it comes from.
        lift: what every unit has more than in the parent.
    """

    axis: Axis
    units: int
    layers: int = 0
    lift: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Growth:
    old: MLPSpec
    new: MLPSpec
    parent: Weights
    fresh: Weights

    def take(self, before: _Carried, index: int, place: int) -> tuple[dict[str, Tensor], _Carried]:
        """A layer of the parent."""
        old_width, width = self.old.widths[place], self.new.widths[index]
        widened = copies if self.new.norm == "layernorm" and width > old_width else first
        out = widened(old_width, width)
        after = _Carried(axis=out, units=old_width, layers=place + 1)
        if is_residual(self.old, place) and is_residual(self.new, index):
            out, after = added_to(before.axis), replace(after, axis=before.axis, lift=before.lift)
        name, old_name = f"backbone.{index}", f"backbone.{place}"
        child = self.norm(f"{old_name}.norm", f"{name}.norm", before.axis)
        given = self.of_parent(f"{old_name}.linear")
        return child | self.linear(f"{name}.linear", given, self._gated(out, old_width), before), after

    def add_nothing(self, before: _Carried, index: int) -> tuple[dict[str, Tensor], _Carried]:
        """A new layer that adds its input: zeros, or for a relu the same to every unit."""
        weight, bias = (f"backbone.{index}.linear.{leaf}" for leaf in ("weight", "bias"))
        child = {one: self.fresh[one].clone() for one in (weight, bias)}
        # The values of a gate may be anything, where the gate is 0.
        silent = slice(0, self.new.widths[index])
        lift = LIFT if self.new.activation == "relu" else 0.0
        child[weight][silent], child[bias][silent] = 0, lift
        return child, replace(before, lift=before.lift + lift)

    def pass_on(self, before: _Carried, index: int) -> tuple[dict[str, Tensor], _Carried]:
        """A new layer that doesn't add its input, and gives it back from its activation."""
        units, width = before.units, self.new.widths[index]
        is_mirror = is_mirrored(self.new, before.layers)
        out = (mirrored if is_mirror else first)(units, width)
        weight, bias = torch.eye(units, dtype=torch.float64), torch.zeros(units, dtype=torch.float64)
        if self.new.activation == "swiglu":
            is_open = F.silu(torch.ones((), dtype=torch.float64))
            weight = torch.cat((torch.zeros_like(weight), weight / is_open))
            bias = torch.cat((torch.ones_like(bias), bias))
        name = f"backbone.{index}.linear"
        child = self.linear(name, (weight, bias), self._gated(out, units), before)
        return child, replace(before, axis=out, lift=0.0)

    def norm(self, old_name: str, name: str, axis: Axis) -> dict[str, Tensor]:
        """A norm's gain and bias, where both have one."""
        weight, bias = f"{name}.weight", f"{name}.bias"
        if weight not in self.fresh or f"{old_name}.weight" not in self.parent:
            return {}
        return {
            weight: gain(self.fresh[weight], self.parent[f"{old_name}.weight"], axis, axis),
            bias: vector(self.fresh[bias], self.parent[f"{old_name}.bias"], axis),
        }

    def linear(
        self, name: str, given: tuple[Tensor, Tensor], out: Axis, before: _Carried
    ) -> dict[str, Tensor]:
        """A linear layer's weight and bias; the bias takes off the lift, which no norm has taken off."""
        weight, bias = f"{name}.weight", f"{name}.bias"
        grown = matrix(self.fresh[weight], given[0], out, before.axis)
        lifted = before.lift * grown.sum(1) if self.new.norm == "none" else 0.0
        return {weight: grown, bias: vector(self.fresh[bias], given[1], out) - lifted}

    def of_parent(self, name: str) -> tuple[Tensor, Tensor]:
        """A linear layer of the parent."""
        return self.parent[f"{name}.weight"], self.parent[f"{name}.bias"]

    def _gated(self, axis: Axis, units: int) -> Axis:
        return joined((axis, axis), (units, units)) if self.new.activation == "swiglu" else axis
