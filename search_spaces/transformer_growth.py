"""A transformer's first weights from its parent's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from search_spaces.axis import Axis, copies, first, gain, joined, matrix, placed, vector
from search_spaces.transformer import TransformerSpace, TransformerSpec, is_tied
from search_spaces.transformer_relation import NEW, has_tied, place_heads, place_turns

Weights = Mapping[str, Tensor]


def inherit(
    space: TransformerSpace, old: TransformerSpec, parent: Weights, new: TransformerSpec, fresh: Weights
) -> dict[str, Tensor]:
    """The child's weights by name, from the parent's and fresh ones, all of them float64 on the CPU.

    New layers come after the parent's; their branches, and those of another kind than the parent's, begin
    with zeros as their last matrix.
    """
    growth = _Growth(old=old, new=new, axes=_axes(space, old, new))
    child = dict(fresh)
    child |= growth.ends(space, parent, fresh)
    written = _centred(parent) if growth.axes.is_centred else parent
    child |= growth.embeddings(written, fresh)
    for index in range(new.depth):
        name = f"blocks.{index}"
        is_old = index < old.depth
        child |= growth.block(_part(written, name), _part(fresh, name), name) if is_old else {}
        if not is_old:
            child |= _silent(fresh, f"{name}.attention.proj.weight")
        if not is_old or old.ffn_kind != new.ffn_kind:
            child |= _silent(fresh, f"{name}.ffn.proj.weight")
    return child


@dataclass(frozen=True, kw_only=True, slots=True)
class _Axes:
    """Stream, what its norms make of it, what the last norm makes of it, and what is within the branches."""

    stream: Axis
    normed: Axis
    last: Axis
    ffn: Axis
    queries: Axis
    keys: Axis
    values: Axis
    mixed: Axis
    is_centred: bool


def _axes(space: TransformerSpace, old: TransformerSpec, new: TransformerSpec) -> _Axes:
    stream, normed, is_centred = _stream_axes(old, new, is_tied=has_tied(space, new))
    # Tied logits are read with what the stream is written with: its scale, and a copy's share, once more.
    tied_share = float((stream.write[0] * normed.write / normed.read)[0])
    last = normed.scaled(1 / tied_share) if has_tied(space, new) else normed
    queries, keys, values, mixed = _attention_axes(old, new)
    return _Axes(
        stream=stream,
        normed=normed,
        last=last,
        ffn=first(old.ffn_width, new.ffn_width),
        queries=queries,
        keys=keys,
        values=values,
        mixed=mixed,
        is_centred=is_centred,
    )


def _stream_axes(old: TransformerSpec, new: TransformerSpec, *, is_tied: bool) -> tuple[Axis, Axis, bool]:
    """The stream's axis, what a norm makes of it, and whether the parent's stream is centred before.

    A stream that is wider by channels of zeros is scaled up to its old mean square, so that a norm's epsilon
    still weighs what it did; the gains take it back. A layernorm takes off the mean: nothing that is written
    needs one, and without it the norm is the mean square's alone. Only a tied embedding is read as well, and
    its mean with it; there every channel is copied.
    """
    if new.width <= old.width:
        axis = first(old.width, new.width)
        return axis, axis, False
    if old.norm == new.norm == "layernorm" and is_tied and new.width % old.width == 0:
        axis = copies(old.width, new.width)
        return axis, axis, False
    axis = first(old.width, new.width, silent=True)
    return axis.scaled(math.sqrt(new.width / old.width)), axis, old.norm == "layernorm"


def _attention_axes(old: TransformerSpec, new: TransformerSpec) -> tuple[Axis, Axis, Axis, Axis]:
    """Queries, keys, values, and the mixed values of every query head.

    Scores are divided by the root of the head size, which the queries make up for. A head's new channels
    have queries of zero, so that its scores stay.
    """
    heads, kv_heads = place_heads(old, new)
    plain = first(old.head_size, new.head_size).source.tolist()
    turns = place_turns(old.head_size, new.head_size)
    turned = turns if old.position == new.position == "rotary" else plain
    queries = placed(_channels(heads, turned, old.head_size))
    in_old_head = torch.tensor([head != NEW for head in heads]).repeat_interleave(new.head_size)
    queries = replace(queries.scaled(math.sqrt(new.head_size / old.head_size)), silent=in_old_head)
    return (
        queries,
        placed(_channels(kv_heads, turned, old.head_size)),
        placed(_channels(kv_heads, plain, old.head_size)),
        placed(_channels(heads, plain, old.head_size)),
    )


def _channels(heads: Sequence[int], within: Sequence[int], old_size: int) -> list[int]:
    return [
        head * old_size + channel if head != NEW and channel != NEW else NEW
        for head in heads
        for channel in within
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Growth:
    old: TransformerSpec
    new: TransformerSpec
    axes: _Axes

    def ends(self, space: TransformerSpace, parent: Weights, fresh: Weights) -> dict[str, Tensor]:
        """The last norm and the readouts."""
        child = self._norm(parent, fresh, "norm", self.axes.last)
        for head in space.heads:
            name = f"readouts.to_{head.name}.weight"
            if not is_tied(head, self.new, space.vocab):
                reader = parent["embedding.weight" if is_tied(head, self.old, space.vocab) else name]
                classes = first(head.classes, head.classes)
                child[name] = matrix(fresh[name], reader, classes, self.axes.last)
        return child

    def embeddings(self, parent: Weights, fresh: Weights) -> dict[str, Tensor]:
        """Of the tokens and the positions; positions that the parent doesn't know begin as zeros."""
        child = {}
        for name in ("embedding.weight", "positions.weight"):
            if name in fresh and name in parent:
                rows = first(len(parent[name]), len(fresh[name]))
                child[name] = matrix(fresh[name].T, parent[name].T, self.axes.stream, rows).T
            elif name in fresh:
                child |= _silent(fresh, name)
        return child

    def block(self, parent: Weights, fresh: Weights, name: str) -> dict[str, Tensor]:
        """One layer."""
        axes, old = self.axes, self.old
        kv_width = old.kv_heads * old.head_size
        qkv = joined((axes.queries, axes.keys, axes.values), (old.width, kv_width, kv_width))
        through = {
            "attention.qkv.weight": (qkv, axes.normed),
            "attention.proj.weight": (axes.stream, axes.mixed),
        }
        if old.ffn_kind == self.new.ffn_kind:
            gated = joined((axes.ffn, axes.ffn), (old.ffn_width, old.ffn_width))
            hidden = gated if old.ffn_kind == "swiglu" else axes.ffn
            through |= {"ffn.up.weight": (hidden, axes.normed), "ffn.proj.weight": (axes.stream, axes.ffn)}
        child = {one: matrix(fresh[one], parent[one], out, into) for one, (out, into) in through.items()}
        for norm in ("attention_norm", "ffn_norm"):
            child |= self._norm(parent, fresh, norm, axes.normed)
        return {f"{name}.{one}": weight for one, weight in child.items()}

    def _norm(self, parent: Weights, fresh: Weights, name: str, after: Axis) -> dict[str, Tensor]:
        weight, bias = f"{name}.weight", f"{name}.bias"
        child = {weight: gain(fresh[weight], parent[weight], self.axes.stream, after)}
        if bias in fresh and bias in parent:
            child[bias] = vector(fresh[bias], parent[bias], after)
        return child


def _centred(weights: Weights) -> dict[str, Tensor]:
    """The same weights, where whatever is written to the stream has the mean 0."""
    centred = dict(weights)
    for name, weight in weights.items():
        if name.endswith(".proj.weight"):
            centred[name] = weight - weight.mean(0, keepdim=True)
        elif name in ("embedding.weight", "positions.weight"):
            centred[name] = weight - weight.mean(1, keepdim=True)
    return centred


def _silent(fresh: Weights, name: str) -> dict[str, Tensor]:
    return {name: torch.zeros_like(fresh[name])}


def _part(weights: Weights, name: str) -> dict[str, Tensor]:
    """What is within a module, by the name that it has there."""
    return {
        one.removeprefix(f"{name}."): weight for one, weight in weights.items() if one.startswith(f"{name}.")
    }
