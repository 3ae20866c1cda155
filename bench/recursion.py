"""Training FLOPs to the same hold-out score: the loop with inheritance, without, and one flat sweep.

`python -m bench.recursion [--seeds N] [--quick]`, on the built-in task; the last line is JSON.

- inherited: the recursive loop. A base model, which is counted as well, then generations of candidates around
  and beyond the champion, the champion trained on (`train_on`), and of the sampler, each from the champion's
  weights as far as they fit.
- scratch: the same loop, whose candidates begin with fresh weights and are trained for as many epochs as
  their inheriting twins have in them, ancestors included; with fewer they could reach nothing that is new.
- flat: one sweep of Ray Tune, OptunaSearch and ASHA, two trials at a time, as many epochs each as the
  inheriting champion may have in it, and as many FLOPs in all as the loop with inheritance has used.

Counted is all that a search computes: every training step and every evaluation of every candidate, those
that were stopped up to where they stopped, and those over a ceiling nothing, under the same ceilings. What
verifies a champion by further seeds is left out of all three: it tells how good a score is, and moves none.
Scores are on the hold-out, by which all three select. A pair of searches is compared at the best score that
both have reached, so neither is given up on. `flops_ratio_scratch` and `flops_ratio_flat` are medians over
the seeds of what the other used until it first had that score, over what the loop with inheritance used.
`path_ratio_*` are of the candidate that has it, with all its ancestors, instead of the whole search. Seconds
are of training, summed over processes.

The loop runs in this process, with the parts of `rsi-ray run`: the same candidates, trainings, ASHA and
promotion by the sealed part. FLOPs are arithmetic; they don't depend on where it runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch

from bench.flat_sweep import flat_sweep
from bench.flops_curve import Curve, best_of, reaching, shortest
from bench.loop_search import Course, LoopSearch
from rsi_ray.api import Sweep
from rsi_ray.config import load_example
from rsi_ray.training import Training
from rsi_ray.wiring import sweep_of

# constant: where a parent's rate has fallen to nothing, its child spends its first epochs on going back
TRAINING = Training(epochs=8, steps_per_epoch=40, warmup_steps=10, schedule="constant")
# a base that is trained far enough to be worth inheriting; --base-depth 1 is that of the built-in job
BASE_EPOCHS, BASE_DEPTH = 25, 2
GENERATIONS, TRIALS = 4, 4
# of the loop from scratch, which may find nothing better any more
MOST_GENERATIONS = 50


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How long each search is."""

    generations: int = GENERATIONS
    trials: int = TRIALS
    base_depth: int = BASE_DEPTH


def sweep_with(seed: int, trials: int) -> Sweep:
    """A generation's sweep on the built-in task."""
    sweep = sweep_of(load_example("built_in"))
    return replace(sweep, training=TRAINING, trials=trials, sampler="meta", seed=1000 * seed)


def searches(seed: int, sizes: Sizes, course: Course) -> dict[str, Curve]:
    """The three searches of a seed, with the same FLOPs each."""
    sweep, config = sweep_with(seed, sizes.trials), load_example("built_in")
    base = {**(config.baseline or {}), "depth": sizes.base_depth}
    with tempfile.TemporaryDirectory() as folder:
        inherited = LoopSearch(sweep, course, base, Path(folder))
        for number in range(1, sizes.generations + 1):
            inherited.generation(number)
        budget = inherited.curve.searched
    with tempfile.TemporaryDirectory() as folder:
        scratch = LoopSearch(sweep, replace(course, inherits=False), base, Path(folder))
        for number in range(1, MOST_GENERATIONS + 1):
            if scratch.curve.searched >= budget:
                break
            scratch.generation(number)
    epochs = course.base_epochs + sizes.generations * TRAINING.epochs
    flat = replace(sweep, training=replace(TRAINING, epochs=epochs))
    curve = flat_sweep(flat.job(), sweep.checked_limits(), budget, seed)
    print(f"  champions: {inherited.champions} inherited, {scratch.champions} scratch", flush=True)
    return {"inherited": inherited.curve, "scratch": scratch.curve, "flat": curve}


def compared(seed: int, curves: dict[str, Curve]) -> dict[str, Any]:
    """What each search has come to, and what two of them used for the best score that both have."""
    mine = curves["inherited"].points
    budget = curves["inherited"].searched
    row: dict[str, Any] = {"seed": seed, "gflop": budget // 10**9}
    for name, curve in curves.items():
        row[f"best_{name}"] = round(best_of(curve.points), 4)
    for name in ("scratch", "flat"):
        other = curves[name].points
        score = min(best_of(mine), best_of(other))
        one, two = reaching(mine, score), reaching(other, score)
        row[name] = {
            "score": round(score, 4),
            "flops_ratio": round(two.searched / one.searched, 2),
            "path_ratio": round(shortest(other, score) / shortest(mine, score), 2),
            "gflop": [one.searched // 10**9, two.searched // 10**9],
            "seconds": [round(one.seconds), round(two.seconds)],
        }
    print(json.dumps(row), flush=True)
    return row


def median_of(rows: list[dict[str, Any]], name: str, ratio: str) -> float:
    """Of all seeds."""
    return round(float(statistics.median(row[name][ratio] for row in rows)), 2)


def main() -> None:
    """Print each seed's comparison, and all numbers as one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--quick", action="store_true", help="two generations of two candidates, one seed")
    parser.add_argument("--base-epochs", type=int, default=BASE_EPOCHS, help="of the base model")
    parser.add_argument("--base-depth", type=int, default=BASE_DEPTH, help="layers of the base model")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sizes = Sizes(base_depth=asked.base_depth)
    sizes = replace(sizes, generations=2, trials=2) if asked.quick else sizes
    course = Course(inherits=True, base_epochs=asked.base_epochs)
    seeds = range(asked.first, asked.first + (1 if asked.quick else asked.seeds))
    rows = [compared(seed, searches(seed, sizes, course)) for seed in seeds]
    ratios = {
        f"{ratio}_ratio_{name}": median_of(rows, name, f"{ratio}_ratio")
        for ratio in ("flops", "path")
        for name in ("scratch", "flat")
    }
    print(json.dumps({**ratios, "seeds": len(rows), "rows": rows}))


if __name__ == "__main__":
    main()
