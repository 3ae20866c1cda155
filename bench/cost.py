"""Does the price list agree with the real modules, and how much faster is it?

Run as `python -m bench.cost`; with `--full`, on 10,000 specs of every space rather than 1,000;
of the published tables, where they are, on a tenth of that.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.adversarial_modules import ADVERSARIES
from search_spaces import (
    GPT2_SMALL,
    ConvSpace,
    Head,
    ImageHead,
    MLPSpace,
    RandomTrial,
    SearchSpace,
    TableHead,
    TransformerSpace,
    TransformerSpec,
    gpt2_space,
)
from search_spaces.measure import measure_space
from search_spaces.tabular import load_table

# Small, since a module is counted in a time that grows with the number of its operators.
SPACES: dict[str, SearchSpace[Any]] = {
    "transformer": TransformerSpace(
        heads=(
            Head(name="lm", classes=64, length=16, dense=True),
            Head(name="parity", classes=2, length=8, dense=False),
        ),
        batch_size=4,
        vocab=64,
        depth=(1, 2),
        widths=(32, 64, 96),
        head_sizes=(8, 16, 32),
        positions=("learned", "rotary", "none"),
        dropouts=(0.0, 0.1),
    ),
    "conv": ConvSpace(
        heads=(ImageHead(name="digits", classes=10, channels=1, height=16, width=12),),
        batch_size=4,
        stages=(1, 2),
        depth=(1, 1),
    ),
    "mlp": MLPSpace(
        heads=(
            TableHead(name="kind", outputs=3, features=13),
            TableHead(name="price", outputs=1, features=13),
        ),
        batch_size=4,
        depth=(1, 3),
    ),
}
# larger nets, so a tenth of the specs: they take as long
DATA = Path(__file__).parents[2] / "shared" / "data"
TABLES = [DATA / f"{name}.parquet" for name in ("nas_bench_macro", "nas_bench_201_cifar10", "hw_gpt_s")]
COUNTED = 15
TEN_BILLION = TransformerSpec(
    depth=32,
    width=5120,
    heads=40,
    kv_heads=40,
    ffn_width=20480,
    ffn_kind="gelu",
    norm="layernorm",
    position="learned",
    tied=True,
)


def main() -> None:
    """Print the comparison, and its numbers as one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="10,000 specs rather than 1,000")
    count = 10_000 if parser.parse_args().full else 1_000
    torch.set_num_threads(1)
    rows = [compare(name, space, count) for name, space in SPACES.items()]
    rows += [compare(path.stem, load_table(path), count // 10) for path in TABLES if path.exists()]
    mismatches = sum(row["mismatches"] for row in rows)
    print(json.dumps({"rows": rows, "specs": count, "mismatches": mismatches, **speed(), **adversaries()}))


def compare(name: str, space: SearchSpace[Any], count: int) -> dict[str, Any]:
    """How many random specs are priced otherwise than their modules are counted, and a price's time."""
    specs = [space.suggest(RandomTrial(random.Random(seed))) for seed in range(count)]
    mismatches = 0
    for spec in specs:
        cost, measured = space.cost(spec), measure_space(space, spec)
        mismatches += (cost.params, cost.forward_flops) != (measured.params, measured.forward_flops)
    prices = [best_of(partial(space.cost, spec), calls=200, rounds=3) for spec in specs[:200]]
    counted = [best_of(partial(count_flops, space, spec), calls=1, rounds=3) for spec in specs[:COUNTED]]
    price = statistics.median(prices)
    row = {
        "space": name,
        "specs": count,
        "distinct": len(set(specs)),
        "mismatches": mismatches,
        "us_per_spec": round(price * 1e6, 3),
        "counter_ms": round(statistics.median(counted) * 1e3, 2),
        "speedup": round(statistics.median(counted) / price),
    }
    print(
        f"{name}: {count} random specs ({row['distinct']} distinct), {mismatches} priced otherwise than"
        f" counted; a price takes {row['us_per_spec']} us, the counter {row['counter_ms']} ms (medians)"
    )
    return row


def speed() -> dict[str, float]:
    """A price against torch's own counter at GPT-2 small's size, and the price of ten billion parameters."""
    space = gpt2_space()
    counted = statistics.median(seconds(lambda: count_flops(space, GPT2_SMALL)) for _ in range(7))
    priced = best_of(lambda: space.cost(GPT2_SMALL), calls=20_000, rounds=5)
    same = count_flops(space, GPT2_SMALL) == space.cost(GPT2_SMALL).forward_flops
    large = best_of(lambda: space.cost(TEN_BILLION), calls=20_000, rounds=5)
    cost = space.cost(TEN_BILLION)
    print(f"GPT-2 small: counter {counted * 1e3:.0f} ms, price {priced * 1e6:.2f} us, same FLOPs: {same}")
    print(f"{cost.params / 1e9:.2f} billion parameters: {large * 1e6:.2f} us for {cost}")
    return {
        "speedup": round(counted / priced),
        "gpt2_same_flops": same,
        "gpt2_counter_ms": round(counted * 1e3, 1),
        "gpt2_price_us": round(priced * 1e6, 3),
        "ten_billion_params": cost.params,
        "ten_billion_us": round(large * 1e6, 3),
    }


def count_flops(space: SearchSpace[Any], spec: Any) -> int:
    """Forward FLOPs of one sample by torch's own counter, which has to build the module first."""
    samples = space.samples().items()
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = space.build(spec)
        model({name: torch.zeros((1, *s.shape), dtype=getattr(torch, s.dtype)) for name, s in samples})
    return int(counter.get_total_flops())


def adversaries() -> dict[str, float]:
    """How many modules with something to hide are measured under their truth."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Lazy modules are a new feature")
        under = [name for name, adversary in ADVERSARIES.items() if adversary.is_under_counted()]
        refused = sum(adversary.measured() is None for adversary in ADVERSARIES.values())
    print(f"{len(ADVERSARIES)} adversarial modules: {refused} refused, under their truth: {under or 'none'}")
    return {"adversaries": len(ADVERSARIES), "refused": refused, "under_counts": len(under)}


def best_of(call: Callable[[], object], *, calls: int, rounds: int) -> float:
    """Seconds of one call: the fastest round, as the others waited for something else."""
    return min(seconds(lambda: [call() for _ in range(calls)]) for _ in range(rounds)) / calls


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
