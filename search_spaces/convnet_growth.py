"""A convolutional network's first weights from its parent's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.axis import Axis, first, gain, matrix, placed, vector
from search_spaces.convnet import ConvSpace
from search_spaces.convnet_relation import has_same_blocks, place_hidden
from search_spaces.convnet_spec import ConvSpec, ConvStage

Weights = Mapping[str, Tensor]


def inherit(
    space: ConvSpace, old: ConvSpec, parent: Weights, new: ConvSpec, fresh: Weights
) -> dict[str, Tensor]:
    """The child's weights by name, from the parent's and fresh ones, all of them float64 on the CPU.

    New channels carry something and are read with zeros: they are normalised in groups of their own, where
    a little would soon count as much as anything. New blocks come after the parent's of their stage; they,
    and those of another kind than the parent's, begin with zeros as their last norm's gain.
    """
    names = _names(new)
    growth = _Growth(old=old, new=new, parent=_renamed(parent, _names(old)), fresh=_renamed(fresh, names))
    child = growth.stem()
    for index in range(len(new.stages)):
        child |= growth.downsample(index) if index else {}
        child |= growth.blocks(index)
    if len(new.stages) >= len(old.stages):
        child |= growth.norm("end", growth.stream(len(new.stages) - 1))
        for head in space.heads:
            classes = first(head.classes, head.classes)
            reader = f"readouts.to_{head.name}"
            child |= growth.linear(reader, classes, growth.stream(len(new.stages) - 1))
    actual = {plain: name for name, plain in names.items()}
    return {**fresh, **{_rename(name, actual): weight for name, weight in child.items()}}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Growth:
    """Weights are named alike in parent and child: by stage, block and what the layer does."""

    old: ConvSpec
    new: ConvSpec
    parent: Weights
    fresh: Weights

    def stream(self, index: int) -> Axis:
        """What the channels of a stage carry; those of a stage more carry the parent's last."""
        old, new = self.old.stages[min(index, len(self.old.stages) - 1)], self.new.stages[index]
        is_plain = index < len(self.old.stages) and old.expansion == new.expansion == 1
        return _hidden(old, new) if is_plain else first(old.width, new.width)

    def stem(self) -> dict[str, Tensor]:
        """The first convolution."""
        channels = self.fresh["stem.weight"].size(1)
        return {"stem.weight": self._convolution("stem.weight", self.stream(0), first(channels, channels))}

    def downsample(self, index: int) -> dict[str, Tensor]:
        """What halves the image. A stage more begins by passing on what it sees."""
        name = f"{index}.downsample.conv.weight"
        before, after = self.stream(index - 1), self.stream(index)
        size = self.fresh[name].size(-1)
        if index < len(self.old.stages):
            norm, kernel = self.norm(f"{index}.downsample.norm", before), self.parent[name]
        else:
            norm, kernel = {}, torch.eye(self.old.stages[-1].width, dtype=torch.float64)[:, :, None, None]
        return {**norm, name: matrix(self.fresh[name], _pooled(kernel, size), after, before)}

    def blocks(self, index: int) -> dict[str, Tensor]:
        """All blocks of a stage."""
        new = self.new.stages[index]
        old = self.old.stages[index] if index < len(self.old.stages) else None
        child: dict[str, Tensor] = {}
        for number in range(new.depth):
            name = f"{index}.{number}"
            if old and number < old.depth and has_same_blocks(old, new):
                child |= self._block(name, old, new, self.stream(index))
            else:
                silenced = f"{name}.narrow_norm.weight"
                child[silenced] = torch.zeros_like(self.fresh[silenced])
        return child

    def _block(self, name: str, old: ConvStage, new: ConvStage, stream: Axis) -> dict[str, Tensor]:
        hidden, child = _hidden(old, new), {}
        into = stream
        if new.expansion > 1:
            widen = f"{name}.widen.weight"
            child[widen] = self._convolution(widen, hidden, stream)
            child |= self.norm(f"{name}.widen_norm", hidden)
            into = hidden
        child[f"{name}.filter.weight"] = self._filter(f"{name}.filter.weight", old, new, hidden, into)
        child |= self.norm(f"{name}.filter_norm", hidden)
        weighed = hidden
        if old.squeeze_excite and new.squeeze_excite:
            squeezed = first(old.squeezed, new.squeezed)
            child |= self.linear(f"{name}.squeeze", squeezed, hidden)
            child |= self.linear(f"{name}.excite", hidden, squeezed)
        elif new.squeeze_excite:
            # All weights begin as sigmoid(0).
            child |= {one: torch.zeros_like(self.fresh[one]) for one in _leaves(f"{name}.excite")}
            weighed = hidden.scaled(0.5)
        child[f"{name}.narrow.weight"] = self._convolution(f"{name}.narrow.weight", stream, weighed)
        return child | self.norm(f"{name}.narrow_norm", stream)

    def _convolution(self, name: str, out: Axis, into: Axis) -> Tensor:
        return matrix(self.fresh[name], self.parent[name], out, into)

    def _filter(self, name: str, old: ConvStage, new: ConvStage, out: Axis, into: Axis) -> Tensor:
        """A convolution in groups; what the parent filters together and the child doesn't is left out."""
        fresh, size, new_size = self.fresh[name], old.hidden // old.groups, new.hidden // new.groups
        pad = (new.kernel_size - old.kernel_size) // 2
        kernel = F.pad(self.parent[name], [pad] * 4)
        group = torch.arange(new.hidden) // new_size
        inputs = into.source[group[:, None] * new_size + torch.arange(new_size)]
        outputs = out.source[:, None]
        is_known = (inputs >= 0) & (outputs >= 0) & (inputs // size == outputs // size)
        kept = kernel[outputs.clamp(min=0), inputs.clamp(min=0) % size]
        kept = torch.where(is_known[:, :, None, None], kept, torch.zeros_like(fresh))
        return torch.where((outputs >= 0)[:, :, None, None], kept, fresh)

    def norm(self, name: str, axis: Axis) -> dict[str, Tensor]:
        """A norm's gain and bias."""
        weight, bias = _leaves(name)
        return {
            weight: gain(self.fresh[weight], self.parent[weight], axis, axis),
            bias: vector(self.fresh[bias], self.parent[bias], axis),
        }

    def linear(self, name: str, out: Axis, into: Axis) -> dict[str, Tensor]:
        """A linear layer's weight and bias."""
        weight, bias = _leaves(name)
        return {
            weight: matrix(self.fresh[weight], self.parent[weight], out, into),
            bias: vector(self.fresh[bias], self.parent[bias], out),
        }


def _hidden(old: ConvStage, new: ConvStage) -> Axis:
    """What the channels within a block carry."""
    source = place_hidden(old, new)
    return first(old.hidden, new.hidden) if source is None else placed(source)


def _pooled(kernel: Tensor, size: int) -> Tensor:
    """A downsampling kernel of another size: a mean over pixels is a convolution with equal weights."""
    if kernel.size(-1) == size:
        return kernel
    return kernel.expand(-1, -1, size, size) / size**2 if size > 1 else kernel.sum((2, 3), keepdim=True)


def _leaves(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"


def _names(spec: ConvSpec) -> dict[str, str]:
    """What a layer does, by the name of its module."""
    names, index = {"backbone.0": "stem"}, 1
    for number, stage in enumerate(spec.stages):
        if stage.downsample:
            convolution = 1 if stage.downsample == "conv" else 2
            names[f"backbone.{index}.0"] = f"{number}.downsample.norm"
            names[f"backbone.{index}.{convolution}"] = f"{number}.downsample.conv"
            index += 1
        for block in range(stage.depth):
            names |= {
                f"backbone.{index}.layers.{at}": f"{number}.{block}.{does}" for at, does in _layers(stage)
            }
            index += 1
    return {**names, f"backbone.{index}": "end"}


def _layers(stage: ConvStage) -> list[tuple[str, str]]:
    """The layers of a block that have weights: where they are, and what they do."""
    layers = ["widen", "widen_norm", ""] if stage.expansion > 1 else []
    layers += ["filter", "filter_norm", ""]
    layers += ["weigh"] if stage.squeeze_excite else []
    layers += ["narrow", "narrow_norm"]
    found = [(str(at), does) for at, does in enumerate(layers) if does not in ("", "weigh")]
    at = layers.index("weigh") if stage.squeeze_excite else None
    return found + ([(f"{at}.squeeze", "squeeze"), (f"{at}.excite", "excite")] if at is not None else [])


def _renamed(weights: Weights, names: Mapping[str, str]) -> dict[str, Tensor]:
    return {_rename(name, names): weight for name, weight in weights.items()}


def _rename(name: str, names: Mapping[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{names.get(module, module)}.{leaf}"
