"""How exactly a child computes what its parent does, before its first step.

`python -m bench.growth [--full]` draws pairs of specs where the child is its parent, grown at random, and
exact by `relation`; 500 for each space, 2,000 with `--full`. The parent's weights are moved away from where
they begin, norms and biases too. A difference is of logits or numbers, in float32, over the largest of them.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces import (
    ConvSpace,
    ConvSpec,
    ConvStage,
    Head,
    ImageHead,
    MLPSpace,
    MLPSpec,
    RandomTrial,
    TableHead,
    TransformerSpace,
    TransformerSpec,
)
from search_spaces.growth import inherit, relation
from search_spaces.mlp import has_equal_neighbours

TRANSFORMERS = TransformerSpace(
    heads=(
        Head(name="lm", classes=48, length=12, dense=True),
        Head(name="parity", classes=2, length=8, dense=False),
    ),
    batch_size=4,
    vocab=48,
    depth=(1, 3),
    widths=(32, 64, 96),
    head_sizes=(8, 16, 32),
    positions=("learned", "rotary", "none"),
)
CONVNETS = ConvSpace(
    heads=(ImageHead(name="digits", classes=10, channels=1, height=9, width=12),),
    batch_size=4,
    stages=(1, 3),
    depth=(1, 2),
    widths=(8, 16, 24, 32),
)
PERCEPTRONS = MLPSpace(
    heads=(TableHead(name="kind", outputs=3, features=7), TableHead(name="price", outputs=1, features=7)),
    batch_size=4,
    depth=(1, 4),
    widths=(8, 12, 16, 32),
)


def grown_transformer(spec: TransformerSpec, rng: random.Random) -> TransformerSpec:
    """More of some of layers, heads, their channels and the FFN; positions and untied weights where none."""
    group = rng.choice([size for size in (1, 2, 4) if size <= 2 * spec.heads // spec.kv_heads])
    kv_heads = math.ceil(spec.heads / group / spec.kv_heads) * spec.kv_heads + rng.choice((0, 0, 1))
    more = (0, 0, spec.head_size) if spec.position == "rotary" else (0, 0, 4, spec.head_size)
    head_size = spec.head_size + rng.choice(more)
    return replace(
        spec,
        depth=spec.depth + rng.choice((0, 1, 2)),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        width=kv_heads * group * head_size,
        ffn_width=spec.ffn_width + rng.choice((0, 8, spec.ffn_width)),
        tied=spec.tied and rng.random() < 0.7,
        position=rng.choice(("none", "learned")) if spec.position == "none" else spec.position,
        dropout=rng.choice((0.0, 0.1)),
    )


def grown_convnet(spec: ConvSpec, rng: random.Random) -> ConvSpec:
    """More of some of every stage's depth, width, kernel size, expansion and links between channels."""
    return replace(spec, stages=tuple(_grown_stage(stage, rng) for stage in spec.stages))


def _grown_stage(stage: ConvStage, rng: random.Random) -> ConvStage:
    width = stage.width + rng.choice((0, 8, stage.width))
    expansion = stage.expansion + (rng.choice((0, 1, 2)) if stage.expansion > 1 else 0)
    hidden = width * expansion
    groups = [size for size in (1, 2, 3, 4, 6, 8, 12, hidden) if hidden % size == 0]
    is_depthwise = stage.groups == stage.hidden and rng.random() < 0.5
    return replace(
        stage,
        depth=stage.depth + rng.choice((0, 1)),
        width=width,
        kernel_size=stage.kernel_size + rng.choice((0, 2)),
        expansion=expansion,
        groups=hidden if is_depthwise else rng.choice(groups),
        squeeze_excite=stage.squeeze_excite or rng.random() < 0.5,
        downsample="conv" if stage.downsample == "avg" and rng.random() < 0.5 else stage.downsample,
    )


def grown_mlp(spec: MLPSpec, rng: random.Random) -> MLPSpec:
    """Wider layers, and more of them anywhere."""
    factors = (1, 2, 3) if spec.norm == "layernorm" else (1, 1.5, 2)
    by_width = {width: rng.choice(factors) for width in spec.widths}
    widths = [int(width * by_width[width]) for width in spec.widths]
    for _ in range(rng.choice((0, 1, 2))):
        at = rng.randrange(len(widths) + 1)
        widths.insert(at, rng.choice((2, 1)) * widths[max(0, at - 1)])
    residual = has_equal_neighbours(tuple(widths)) and (spec.residual or rng.random() < 0.5)
    return replace(spec, widths=tuple(widths), residual=residual)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A space, and how one of its specs grows."""

    space: Any
    grown: Callable[[Any, random.Random], Any]


FAMILIES = {
    "transformer": Family(space=TRANSFORMERS, grown=grown_transformer),
    "conv": Family(space=CONVNETS, grown=grown_convnet),
    "mlp": Family(space=PERCEPTRONS, grown=grown_mlp),
}


def grown_exactly(family: Family, old: Any, rng: random.Random) -> Any:
    """A spec that contains its parent's, where an exact map exists."""
    while True:
        new = family.grown(old, rng)
        if new != old and relation(family.space, old, new).kind == "exact":
            return new


def exact_pair(family: Family, rng: random.Random) -> tuple[Any, Any]:
    """A random parent's spec, and one that it grows into."""
    old = family.space.suggest(RandomTrial(rng))
    return old, grown_exactly(family, old, rng)


def lived_in(model: nn.Module, seed: int) -> nn.Module:
    """Move all weights away from where they begin, as a training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = float(parameter.std()) if parameter.ndim > 1 else 0.4
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5 * spread)
    return model


def inputs_of(space: Any, seed: int, *, batch: int = 4) -> dict[str, Tensor]:
    """A few samples of every head."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(space.vocab, (batch, *sample.shape), generator=generator)
        if sample.dtype == "int64"
        else torch.randn((batch, *sample.shape), generator=generator)
        for name, sample in space.samples().items()
    }


def child_of(space: Any, old: Any, parent: nn.Module, new: Any, seed: int) -> nn.Module:
    """A child, filled with what it inherits."""
    torch.manual_seed(seed)
    child: nn.Module = space.build(new)
    inherit(space, old, parent.state_dict(), new, child)
    return child


def difference(parent: nn.Module, child: nn.Module, inputs: dict[str, Tensor]) -> float:
    """The largest difference of a head's outputs, over the largest of them; dropout is off."""
    with torch.no_grad():
        before, after = parent.eval()(inputs), child.eval()(inputs)
    return max(float((after[name] - one).abs().max() / one.abs().max()) for name, one in before.items())


def difference_of(space: Any, old: Any, new: Any, seed: int) -> float:
    """The difference between a parent that has lived, and its child."""
    torch.manual_seed(seed)
    parent = lived_in(space.build(old), seed)
    return difference(parent, child_of(space, old, parent, new, seed), inputs_of(space, seed))


def measure(name: str, family: Family, count: int) -> dict[str, Any]:
    """The worst difference over so many pairs, and what pairs of independent draws would inherit."""
    rng = random.Random(0)
    pairs = [exact_pair(family, rng) for _ in range(count)]
    differences = sorted(difference_of(family.space, *pair, seed) for seed, pair in enumerate(pairs))
    draws = [family.space.suggest(RandomTrial(rng)) for _ in range(2 * count)]
    kinds = Counter(relation(family.space, *pair).kind for pair in zip(draws[::2], draws[1::2], strict=True))
    row = {
        "pairs": count,
        "distinct": len(set(pairs)),
        "worst": differences[-1],
        "median": differences[count // 2],
        "of_independent_draws": dict(kinds),
    }
    print(f"{name}: {count} pairs, worst difference {row['worst']:.1e}, median {row['median']:.1e}")
    return row


def main() -> None:
    """Print the worst difference of each space, and all numbers as one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="2,000 pairs of each space rather than 500")
    count = 2_000 if parser.parse_args().full else 500
    torch.set_num_threads(1)
    rows = {name: measure(name, family, count) for name, family in FAMILIES.items()}
    worst = max(row["worst"] for row in rows.values())
    print(json.dumps({"pairs": count * len(rows), "worst": worst, **rows}))


if __name__ == "__main__":
    main()
