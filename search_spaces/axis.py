"""Where a parent's channels are among a child's, and the child's weights that follow from it.

A weight between two axes is settled by three rules. What the parent knows is kept, scaled as the axes say.
A new channel that must carry zeros ("silent") is written with zeros and read with fresh weights; one that may
carry anything is written with fresh weights and read with zeros. So the parent's function is kept, and one
side of every new channel is fresh: the other side has a gradient in the first step, and it in the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Axis:
    """The child's channels along one dimension; every tensor has one number for each.

    Attributes:
        source: the parent's channel that this one carries, or -1 where it is new.
        write: what the channel carries, as a multiple of the parent's.
        read: the share with which it is read; over the copies of one channel, write x read sums to 1.
        silent: whether the channel carries zeros where it is new.
        copied: whether channels are carried several times, so that a reader may tell the copies apart.
    """

    source: Tensor
    write: Tensor
    read: Tensor
    silent: Tensor
    copied: bool = False

    @property
    def is_old(self) -> Tensor:
        """Whether a channel carries one of the parent's."""
        return self.source >= 0

    def scaled(self, factor: float) -> Axis:
        """The same channels, carrying so many times as much."""
        return replace(self, write=self.write * factor, read=self.read / factor)


def placed(source: Sequence[int] | Tensor, *, silent: bool = False) -> Axis:
    """Channels that carry the parent's as they are; -1 is a new one."""
    source = torch.as_tensor(source, dtype=torch.int64)
    ones = torch.ones(len(source), dtype=torch.float64)
    return Axis(source=source, write=ones, read=ones, silent=torch.full(source.shape, silent))


def first(old: int, new: int, *, silent: bool = False) -> Axis:
    """The parent's channels in front, as many as there is room for."""
    channels = torch.arange(new)
    return placed(torch.where(channels < old, channels, -1), silent=silent)


def copies(old: int, new: int) -> Axis:
    """All channels carry one of the parent's, in turn; each is read by its share."""
    source = torch.arange(new) % old
    share = 1 / torch.bincount(source, minlength=old).double()
    return replace(placed(source), read=share[source], copied=new > old)


def mirrored(old: int, new: int) -> Axis:
    """The parent's channels, and once more with the other sign: x = f(x) - f(-x) for relu, gelu and silu."""
    channels = torch.arange(new)
    sign = torch.where(channels < old, 1.0, -1.0).double()
    source = torch.where(channels < 2 * old, channels % old, -1)
    return replace(placed(source), write=sign, read=sign)


def added_to(axis: Axis) -> Axis:
    """What is added to the channels of this axis: to a mirrored one nothing on its other side."""
    is_other = axis.write < 0
    source = torch.where(is_other, -1, axis.source)
    return replace(axis, source=source, silent=axis.silent | is_other)


def joined(axes: Sequence[Axis], old: Sequence[int]) -> Axis:
    """Axes one after another, the parent's of these sizes."""
    offsets = [sum(old[:index]) for index in range(len(old))]
    sources = [
        torch.where(axis.is_old, axis.source + offset, -1) for axis, offset in zip(axes, offsets, strict=True)
    ]
    return Axis(
        source=torch.cat(sources),
        write=torch.cat([axis.write for axis in axes]),
        read=torch.cat([axis.read for axis in axes]),
        silent=torch.cat([axis.silent for axis in axes]),
    )


def matrix(fresh: Tensor, parent: Tensor, out: Axis, into: Axis) -> Tensor:
    """The child's weight (out, into, ...), from a fresh one of its shape and the parent's."""
    tail = (1,) * (fresh.ndim - 2)
    kept = parent[out.source.clamp(min=0)][:, into.source.clamp(min=0)]
    kept = kept * out.write.view(-1, 1, *tail) * into.read.view(1, -1, *tail)
    if into.copied:
        kept = kept + _differences(fresh, into.source)
    row = torch.where(into.is_old.view(1, -1, *tail), kept, fresh * into.silent.view(1, -1, *tail))
    return torch.where(out.is_old.view(-1, 1, *tail), row, fresh * ~out.silent.view(-1, 1, *tail))


def _differences(fresh: Tensor, source: Tensor) -> Tensor:
    """Fresh weights less the mean over the copies: they add nothing, and tell the copies apart."""
    size = int(source.max()) + 1
    sums = fresh.new_zeros(fresh.size(0), size).index_add_(1, source, fresh)
    return fresh - (sums / torch.bincount(source, minlength=size))[:, source]


def vector(fresh: Tensor, parent: Tensor, out: Axis) -> Tensor:
    """The child's bias, from a fresh one and the parent's."""
    kept = parent[out.source.clamp(min=0)] * out.write
    return torch.where(out.is_old, kept, fresh * ~out.silent)


def gain(fresh: Tensor, parent: Tensor, before: Axis, after: Axis) -> Tensor:
    """The child's gain of a norm, which takes channels from one axis to another."""
    kept = parent[after.source.clamp(min=0)] * after.write / before.write
    return torch.where(after.is_old, kept, fresh)
