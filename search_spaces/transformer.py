"""Decoder-only transformers with one shared backbone and one head per task."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast, get_args

from search_spaces.choices import choose, choose_among, divisors
from search_spaces.cost import Cost
from search_spaces.dropout import problems_of_dropout, problems_of_dropouts
from search_spaces.heads import Head, problems_of_heads
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

__all__ = [
    "GPT2_SMALL",
    "FfnKind",
    "Head",
    "Norm",
    "Position",
    "TransformerSpace",
    "TransformerSpec",
    "gpt2_space",
    "is_tied",
]

FfnKind = Literal["gelu", "swiglu"]
Norm = Literal["layernorm", "rmsnorm"]
Position = Literal["learned", "rotary", "none"]

FFN_MATRICES = {"gelu": 2, "swiglu": 3}
NORM_VECTORS = {"layernorm": 2, "rmsnorm": 1}
KEPT_PER_FFN = {"gelu": 2, "swiglu": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerSpec:
    """One architecture; what exists is consistent, so it can be priced and built.

    `kv_heads` key-value heads serve `heads` query heads. `tied` shares the token embedding with every dense
    head that predicts the vocabulary. `dropout` is of the embeddings and of what every branch adds.
    """

    depth: int
    width: int
    heads: int
    kv_heads: int
    ffn_width: int
    ffn_kind: FfnKind
    norm: Norm
    position: Position
    tied: bool
    dropout: float = 0.0

    def __post_init__(self) -> None:
        sizes = ("depth", "width", "heads", "kv_heads", "ffn_width")
        problems = [p for name in sizes for p in problems_of_size(name, getattr(self, name))]
        problems += problems_of_choice("ffn_kind", self.ffn_kind, get_args(FfnKind))
        problems += problems_of_choice("norm", self.norm, get_args(Norm))
        problems += problems_of_choice("position", self.position, get_args(Position))
        problems += problems_of_choice("tied", self.tied, (False, True))
        problems += problems_of_dropout("dropout", self.dropout)
        refuse(problems or self._problems_of_division())

    def _problems_of_division(self) -> list[str]:
        problems = []
        if self.width % self.heads:
            problems.append(f"heads: {self.heads}, expected a divisor of width {self.width}")
        elif self.position == "rotary" and self.head_size % 2:
            problems.append(f"heads: {self.heads}, expected an even head size for rotary positions")
        if self.heads % self.kv_heads:
            problems.append(f"kv_heads: {self.kv_heads}, expected a divisor of heads {self.heads}")
        return problems

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class TransformerSpace:
    """The transformers that a sampler may propose for these task heads.

    Attributes:
        heads: the tasks; all share the backbone.
        batch_size: samples of every head in one training step.
        vocab: token ids run from 0 to vocab - 1.
        depth: fewest and most layers.
        widths: channels of the residual stream.
        head_sizes: channels of one attention head; those that divide the width are offered.
        kv_groups: query heads per key-value head; those that divide the heads are offered.
        ffn_ratio: least and most of ffn_width / width.
        ffn_kinds, norms, positions, tied: the variants offered. `tied` matters only where a dense head
            predicts the vocabulary, and is asked only there.
        dropouts: shares of values that training sets to zero, each at least 0 and less than 1.
    """

    heads: tuple[Head, ...]
    batch_size: int
    vocab: int = 256
    depth: tuple[int, int] = (1, 8)
    widths: tuple[int, ...] = (32, 64, 96, 128, 192, 256)
    head_sizes: tuple[int, ...] = (16, 32, 64)
    kv_groups: tuple[int, ...] = (1, 2, 4)
    ffn_ratio: tuple[int, int] = (1, 4)
    ffn_kinds: tuple[FfnKind, ...] = ("gelu", "swiglu")
    norms: tuple[Norm, ...] = ("layernorm", "rmsnorm")
    positions: tuple[Position, ...] = ("learned", "rotary")
    tied: tuple[bool, ...] = (True, False)
    dropouts: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        problems = [
            *problems_of_heads(self.heads, Head),
            *problems_of_size("batch_size", self.batch_size),
            *problems_of_size("vocab", self.vocab),
            *problems_of_range("depth", self.depth),
            *problems_of_range("ffn_ratio", self.ffn_ratio),
        ]
        for name in ("widths", "head_sizes", "kv_groups"):
            problems += problems_of_sizes(name, getattr(self, name))
        problems += problems_of_choices("ffn_kinds", self.ffn_kinds, get_args(FfnKind))
        problems += problems_of_choices("norms", self.norms, get_args(Norm))
        problems += problems_of_choices("positions", self.positions, get_args(Position))
        problems += problems_of_choices("tied", self.tied, (False, True))
        problems += problems_of_dropouts("dropouts", self.dropouts)
        refuse(problems or self._problems_of_division())

    def _problems_of_division(self) -> list[str]:
        problems = [
            f"widths: {width}, expected a multiple of one of head_sizes {self.head_sizes}"
            for width in self.widths
            if not divisors(width, self.head_sizes)
        ]
        if 1 not in self.kv_groups:
            problems.append(f"kv_groups: {self.kv_groups}, expected 1 among them, for any number of heads")
        odd = [size for size in self.head_sizes if size % 2]
        if "rotary" in self.positions and odd:
            problems.append(f"head_sizes: {odd}, expected even sizes for rotary positions")
        return problems

    @property
    def context(self) -> int:
        """Longest sequence that a head reads."""
        return max(head.length for head in self.heads)

    def suggest(self, trial: Suggest) -> TransformerSpec:
        """Choose a spec; which head sizes and groups are offered depends on the choices before them."""
        width = choose(trial, "width", self.widths)
        head_size = choose_among(trial, "head_size", divisors(width, self.head_sizes))
        heads = width // head_size
        kv_groups = choose_among(trial, "kv_groups", divisors(heads, self.kv_groups))
        return TransformerSpec(
            depth=trial.suggest_int("depth", *self.depth),
            width=width,
            heads=heads,
            kv_heads=heads // kv_groups,
            ffn_width=width * trial.suggest_int("ffn_ratio", *self.ffn_ratio),
            ffn_kind=choose(trial, "ffn_kind", self.ffn_kinds),
            norm=choose(trial, "norm", self.norms),
            position=choose(trial, "position", self.positions),
            tied=self._totals.untied_classes < self._totals.classes and choose(trial, "tied", self.tied),
            dropout=choose(trial, "dropout", self.dropouts),
        )

    def cost(self, spec: TransformerSpec) -> Cost:
        """Price the spec in exact integers.

        `forward_flops` is one sample of every head (batch 1 each) through the backbone and its readout.
        Counted: matrix products and attention, 1 multiply-accumulate = 2 FLOPs, causal attention not halved.
        Left out: lookups, norms, activations, softmax, rotation.
        `train_step_flops` is 3 x batch_size x forward_flops (a backward is two forwards): what a counter
        sees of forward and backward. A fused attention kernel that computes its scores again in the
        backward adds at most a sixth of attention's part, and is not charged.
        `memory_bytes` is, in float32, 16 bytes a parameter (weight, gradient, Adam's two moments), and
        4 bytes for each value that the forward of one batch of every head keeps for the backward; attention
        is taken to be fused, as it is on CPU and CUDA, and to keep no matrix of scores.
        """
        width, ffn_width = spec.width, spec.ffn_width
        kv_width = width // spec.heads * spec.kv_heads
        totals = self._totals
        layer = width * (2 * (width + kv_width) + FFN_MATRICES[spec.ffn_kind] * ffn_width)
        vectors = NORM_VECTORS[spec.norm] * (2 * spec.depth + 1) + totals.vocab
        vectors += totals.untied_classes if spec.tied else totals.classes
        if spec.position == "learned":
            vectors += totals.context
        params = spec.depth * layer + width * vectors
        macs = spec.depth * (layer * totals.tokens + 2 * width * totals.pairs) + width * totals.logits
        kept = spec.depth * (12 * width + 4 * kv_width + KEPT_PER_FFN[spec.ffn_kind] * ffn_width)
        if spec.dropout:
            # The mask of the embeddings, and of both branches of every layer.
            kept += (2 * spec.depth + 1) * width
        values = totals.tokens * (kept + 4 * width) + 3 * totals.logits
        return Cost(
            params=params,
            forward_flops=2 * macs,
            train_step_flops=6 * self.batch_size * macs,
            memory_bytes=16 * params + 4 * self.batch_size * values,
        )

    def samples(self) -> dict[str, Sample]:
        """One sequence of token ids for every head."""
        return {head.name: Sample(shape=(head.length,), dtype="int64") for head in self.heads}

    def build(self, spec: TransformerSpec) -> nn.Module:
        """Build the model on the current default device."""
        # Samplers, the governor and the price list run without torch: only a build may load it.
        model = importlib.import_module("search_spaces.transformer_model")
        return cast("nn.Module", model.Transformer(spec, heads=self.heads, vocab=self.vocab))

    @cached_property
    def _totals(self) -> _Totals:
        heads = self.heads
        tieable = sum(head.classes for head in heads if _predicts(head, self.vocab))
        classes = sum(head.classes for head in heads)
        return _Totals(
            vocab=self.vocab,
            context=self.context,
            classes=classes,
            untied_classes=classes - tieable,
            tokens=sum(head.length for head in heads),
            pairs=sum(head.length**2 for head in heads),
            logits=sum(head.classes * (head.length if head.dense else 1) for head in heads),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Totals:
    """Sums over a space's heads, for one sample of each."""

    vocab: int
    context: int
    classes: int
    untied_classes: int
    tokens: int
    pairs: int
    logits: int


def is_tied(head: Head, spec: TransformerSpec, vocab: int) -> bool:
    """Whether this head's readout is the token embedding."""
    return spec.tied and _predicts(head, vocab)


def _predicts(head: Head, vocab: int) -> bool:
    return head.dense and head.classes == vocab


GPT2_SMALL = TransformerSpec(
    depth=12,
    width=768,
    heads=12,
    kv_heads=12,
    ffn_width=3072,
    ffn_kind="gelu",
    norm="layernorm",
    position="learned",
    tied=True,
)


def gpt2_space(batch_size: int = 8) -> TransformerSpace:
    """GPT-2's vocabulary and context, from its small size to some ten billion parameters and more."""
    return TransformerSpace(
        heads=(Head(name="lm", classes=50257, length=1024, dense=True),),
        batch_size=batch_size,
        vocab=50257,
        depth=(6, 48),
        widths=(768, 1024, 1280, 1600, 2048, 2560, 3072, 4096, 5120),
        head_sizes=(64, 128),
        positions=("learned",),
        tied=(True,),
    )
