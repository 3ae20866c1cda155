"""The space of HW-GPT-Bench's small language models: width, depth, and per layer heads and feed-forward.

Source: Sukthanker et al., "HW-GPT-Bench: Hardware-Aware Architecture Benchmark for Language Models", 2024.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from search_spaces.heads import Head
from search_spaces.per_sample import PerSample
from search_spaces.sizes import problems_of_choice, refuse
from search_spaces.space import Sample, Suggest

if TYPE_CHECKING:
    from torch import nn

EMBEDS = (192, 384, 768)
DEPTHS = (10, 11, 12)
MLP_RATIOS = (2, 3, 4)
HEADS = (4, 8, 12)
BIASES = (False, True)
HEAD_SIZE = 64
OPENWEBTEXT = Head(name="openwebtext", classes=50254, length=1024, dense=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class GptSpec:
    """One language model; a layer has its own feed-forward width, embed x mlp_ratio, and number of heads."""

    embed: int
    mlp_ratios: tuple[int, ...]
    heads: tuple[int, ...]
    bias: bool

    def __post_init__(self) -> None:
        problems = problems_of_choice("embed", self.embed, EMBEDS)
        problems += problems_of_choice("number of mlp_ratios", len(self.mlp_ratios), DEPTHS)
        problems += problems_of_choice("number of heads", len(self.heads), (len(self.mlp_ratios),))
        for name, allowed in (("mlp_ratios", MLP_RATIOS), ("heads", HEADS)):
            for index, value in enumerate(getattr(self, name)):
                problems += problems_of_choice(f"{name}[{index}]", value, allowed)
        refuse(problems + problems_of_choice("bias", self.bias, BIASES))

    @property
    def n_layer(self) -> int:
        """Layers."""
        return len(self.mlp_ratios)


@dataclass(frozen=True, kw_only=True)
class HwGpt:
    """About 10^13 models, of which the table has 10,000.

    Attributes:
        head: the text task: next-token logits at every position.
    """

    head: Head = OPENWEBTEXT

    key_columns: ClassVar[tuple[str, ...]] = ("embed", "mlp", "heads", "bias")
    score_column: ClassVar[str] = "ppl"
    direction: ClassVar[Literal["maximize", "minimize"]] = "minimize"

    def __post_init__(self) -> None:
        if not self.head.dense:
            raise ValueError(f"head: {self.head}, expected a dense one")

    @property
    def heads(self) -> tuple[Head, ...]:
        """The one head."""
        return (self.head,)

    def suggest(self, trial: Suggest) -> GptSpec:
        """Choose width and depth, then each layer that the depth has."""
        embed = trial.suggest_categorical("embed", EMBEDS)
        layers = range(cast("int", trial.suggest_categorical("n_layer", DEPTHS)))
        mlp_ratios = tuple(trial.suggest_categorical(f"mlp_ratio_{i}", MLP_RATIOS) for i in layers)
        heads = tuple(trial.suggest_categorical(f"heads_{i}", HEADS) for i in layers)
        return GptSpec(
            embed=cast("int", embed),
            mlp_ratios=cast("tuple[int, ...]", mlp_ratios),
            heads=cast("tuple[int, ...]", heads),
            bias=cast("bool", trial.suggest_categorical("bias", BIASES)),
        )

    def per_sample(self, spec: GptSpec) -> PerSample:
        """Exact parameters and FLOPs: matrix products, and attention whole (causal, but not halved).

        Left out: lookups, norms, activations, softmax, rotation. `kept_bytes` is in float32, with fused
        attention, which keeps no matrix of scores.
        """
        embed, vocab, length = spec.embed, self.head.classes, self.head.length
        depth, ratios, heads = spec.n_layer, sum(spec.mlp_ratios), sum(spec.heads)
        attended = HEAD_SIZE * heads
        layers = 3 * embed**2 * ratios + 4 * embed * attended
        biases = 2 * embed * depth + 2 * embed * ratios + 3 * attended
        norms = embed * (4 * depth + 2)
        macs = length * (layers + vocab * embed + 2 * length * attended)
        kept = depth * (3 * embed + 4) + 4 * embed * ratios + 7 * attended + heads
        return PerSample(
            params=2 * vocab * embed + layers + norms + (biases if spec.bias else 0),
            forward_flops=2 * macs,
            kept_bytes=4 * length * (kept + 2 * embed + 4 + 3 * vocab),
        )

    def samples(self) -> dict[str, Sample]:
        """One sequence of token ids."""
        return {self.head.name: Sample(shape=(self.head.length,), dtype="int64")}

    def build(self, spec: GptSpec) -> nn.Module:
        """Build the model on the current default device."""
        # Prices and look-ups run without torch: only a build may load it.
        model = importlib.import_module("search_spaces.hw_gpt_model")
        return cast("nn.Module", model.Gpt(spec, head=self.head))

    def key(self, spec: GptSpec) -> tuple[str, ...]:
        """The table's `embed`, `mlp`, `heads` and `bias`."""
        mlp, heads = ("-".join(map(str, layers)) for layers in (spec.mlp_ratios, spec.heads))
        return (str(spec.embed), mlp, heads, str(int(spec.bias)))

    def spec(self, key: tuple[str, ...]) -> GptSpec:
        """Read a spec back from its key."""
        embed, mlp, heads, bias = key
        mlp_ratios, per_layer = (tuple(map(int, layers.split("-"))) for layers in (mlp, heads))
        return GptSpec(embed=int(embed), mlp_ratios=mlp_ratios, heads=per_layer, bias=bias == "1")

    def score(self, value: float) -> float:
        """The negative of the perplexity."""
        return -value
