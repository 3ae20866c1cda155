"""What zero-cost proxies tell: rank correlation of each with the trained score, beside counting parameters.

`python -m bench.proxies [--full]` trains random specs of the built-in spaces on tasks of theirs, in a few
short epochs each, and compares. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rsi_ray.scoring import loss_of
from rsi_ray.tasks import Task, breast_cancer_task, built_in_task, digits_task
from rsi_ray.train import Trainer, build, train
from rsi_ray.training import Training
from rsi_ray.zero_cost import PROXIES, by_rank, measured, proxies_flops, ranked
from search_spaces import ConvSpace, MLPSpace, RandomTrial, SearchSpace, TransformerSpace

CPU = torch.device("cpu")
SPECS, FULL_SPECS = 20, 60
LARGEST = 150_000
KEPT = 0.25
COUNTED = ("params", "forward_flops")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A task, the space of its models, and how they are trained."""

    task: Task
    space: SearchSpace[Any]
    training: Training


def cases() -> dict[str, Case]:
    """The tasks by name."""
    digits, built_in, tumours = digits_task(), built_in_task(), breast_cancer_task()
    return {
        "digits": Case(
            task=digits,
            space=ConvSpace(heads=digits.heads, batch_size=32, widths=(8, 16, 32), dropouts=(0.0,)),
            training=Training(epochs=3, steps_per_epoch=20, learning_rate=1e-2, warmup_steps=10),
        ),
        "built_in": Case(
            task=built_in,
            space=TransformerSpace(
                heads=built_in.heads, batch_size=32, depth=(1, 4), widths=(32, 48, 64), head_sizes=(16, 32)
            ),
            training=Training(epochs=3, steps_per_epoch=30),
        ),
        "breast_cancer": Case(
            task=tumours,
            space=MLPSpace(heads=tumours.heads, batch_size=32, widths=(8, 16, 32, 64), dropouts=(0.0,)),
            training=Training(epochs=1, steps_per_epoch=20, warmup_steps=10),
        ),
    }


def main() -> None:
    """Measure every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{FULL_SPECS} specs rather than {SPECS}")
    parser.add_argument("--seeds", type=int, default=1, help="of the trained score, which is their mean")
    given = parser.parse_args()
    torch.set_num_threads(1)
    count = FULL_SPECS if given.full else SPECS
    rows = [row_of(name, case, count, given.seeds) for name, case in cases().items()]
    print(json.dumps({"rows": rows, "specs": count, "seeds": given.seeds}))


def row_of(name: str, case: Case, count: int, seeds: int) -> dict[str, Any]:
    """Correlations on one task, what a screening keeps, and what it costs."""
    specs = distinct_specs(case.space, count)
    batch_size = case.training.batch_size
    batches = case.task.batch(np.random.default_rng(0), batch_size)
    began = time.perf_counter()
    values = [measured(build(case.space, spec, seed=0, device=CPU), batches, loss_of) for spec in specs]
    seconds = time.perf_counter() - began
    scores = [statistics.fmean(trained(case, spec, seed) for seed in range(seeds)) for spec in specs]
    costs = [case.space.cost(spec) for spec in specs]
    told: dict[str, Sequence[float]] = {proxy: [one[proxy] for one in values] for proxy in PROXIES}
    told |= {what: [getattr(cost, what) for cost in costs] for what in COUNTED}
    told["all"] = mean_ranks(values)
    step = statistics.median(
        proxies_flops([*PROXIES], cost.forward_flops, batch_size) / cost.train_step_flops for cost in costs
    )
    row = {
        "task": name,
        "spearman": {what: round(spearman(numbers, scores), 2) for what, numbers in told.items()},
        "kept": {what: round(kept_best(numbers, scores), 3) for what, numbers in told.items()},
        "best": round(max(scores), 3),
        "mean": round(statistics.fmean(scores), 3),
        "ms": round(1000 * seconds / count, 1),
        "steps": round(step, 2),
    }
    print(f"{name}: {row['spearman']}; best of all {row['best']}, of the quarter that is kept {row['kept']}")
    return row


def distinct_specs(space: SearchSpace[Any], count: int) -> list[Any]:
    """Random specs that differ, none larger than can be trained here in seconds."""
    specs: dict[Any, None] = {}
    for seed in range(100 * count):
        spec = space.suggest(RandomTrial(random.Random(seed)))
        if space.cost(spec).params <= LARGEST:
            specs[spec] = None
        if len(specs) == count:
            break
    return list(specs)


def trained(case: Case, spec: Any, seed: int) -> float:
    """Score on the hold-out after the last epoch."""
    trainer = Trainer(
        build(case.space, spec, seed=seed, device=CPU),
        case.task,
        case.training,
        cost=case.space.cost(spec),
        shapes={name: sample.shape for name, sample in case.space.samples().items()},
        seed=seed,
        device=CPU,
    )
    return [*train(trainer, case.training)][-1].score


def mean_ranks(values: Sequence[Mapping[str, float]]) -> list[float]:
    """The mean of the ranks by all proxies, more is better."""
    order = by_rank(values)
    return [-one.rank for one in sorted(order, key=lambda one: one.index)]


def spearman(numbers: Sequence[float], scores: Sequence[float]) -> float:
    """Rank correlation; 0 where all numbers are equal."""
    one, other = ranked(numbers), ranked(scores)
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def kept_best(numbers: Sequence[float], scores: Sequence[float]) -> float:
    """Best score among the quarter with the largest numbers."""
    kept = np.argsort(ranked(numbers), kind="stable")[: max(1, round(KEPT * len(scores)))]
    return float(np.asarray(scores)[kept].max())


if __name__ == "__main__":
    main()
