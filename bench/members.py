"""Candidates per minute of one shape: as one batch by `torch.func`, against one after the other.

`python -m bench.members [--full]`. On CUDA, where it is, in minutes; on a CPU in minutes of one thread's
processor time, on which other work tells less. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from rsi_ray.config import load_example
from rsi_ray.hyperparameters import TrainingChoices
from rsi_ray.members import Members
from rsi_ray.placement import Resources
from rsi_ray.training_job import TrainingJob
from rsi_ray.wiring import sweep_of
from search_spaces.given_trial import GivenTrial

STEPS = 10
"""Of one measured epoch; with its evaluation it is scaled to the example's own."""
TURNS = 3

CONV: dict[str, Any] = {
    "stages": 2,
    "kernel_size_0": 3,
    "kernel_size_1": 3,
    "expansion_0": 2,
    "expansion_1": 2,
    "depthwise_0": True,
    "depthwise_1": True,
    "squeeze_excite_0": False,
    "squeeze_excite_1": False,
    "downsample_1": "max",
    "depth_0": 1,
    "depth_1": 1,
    "dropout": 0.0,
}
TRANSFORMER: dict[str, Any] = {
    "head_size": 16,
    "kv_groups": 1,
    "ffn_ratio": 2,
    "ffn_kind": "gelu",
    "norm": "layernorm",
    "position": "learned",
    "tied": True,
    "dropout": 0.0,
}
MLP: dict[str, Any] = {"activation": "relu", "norm": "layernorm", "residual": False, "dropout": 0.0}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One shape.

    Attributes:
        example: whose task and training it has.
        given: answers to what its space asks.
        batch: samples per head and step.
        full: whether it is measured with `--full` alone.
    """

    example: str
    given: Mapping[str, Any]
    batch: int = 32
    full: bool = False

    @property
    def name(self) -> str:
        """Of the row: widths, and the batch."""
        widths = [str(value) for name, value in self.given.items() if name.startswith("width")]
        return f"{KINDS[self.example]} {'-'.join(widths)}x{self.given.get('depth', 1)} batch {self.batch}"


KINDS = {"built_in": "transformer", "breast_cancer": "mlp", "digits": "conv"}


def transformer(width: int, depth: int, **options: Any) -> Case:
    """On the built-in data."""
    return Case(example="built_in", given={**TRANSFORMER, "width": width, "depth": depth}, **options)


def mlp(width: int, **options: Any) -> Case:
    """Of two layers, on the table of tumours."""
    given = {**MLP, "depth": 2, "width_0": width, "width_1": width}
    return Case(example="breast_cancer", given=given, **options)


def conv(first: int, second: int, **options: Any) -> Case:
    """Of two stages, on the digits."""
    return Case(example="digits", given={**CONV, "width_0": first, "width_1": second}, **options)


CASES = (
    transformer(32, 1),
    transformer(32, 1, batch=4),
    mlp(32),
    mlp(128),
    conv(16, 32),
    transformer(16, 1, batch=1, full=True),
    transformer(32, 2, batch=2, full=True),
    transformer(64, 2, full=True),
    transformer(64, 2, batch=8, full=True),
    mlp(64, full=True),
    mlp(256, full=True),
    mlp(512, full=True),
    mlp(128, batch=256, full=True),
    conv(16, 32, batch=4, full=True),
    conv(48, 96, full=True),
)


def main() -> None:
    """Measure every case with every number of members, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="larger shapes too, and five turns instead of three"
    )
    parser.add_argument("--members", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case for case in CASES if asked.full or not case.full]
    rows = [compare(case, count) for case in cases for count in asked.members]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(json.dumps({"device": device, "turns": TURNS, "rows": rows}))


def compare(case: Case, count: int) -> dict[str, Any]:
    """Candidates per minute both ways, each the median of its turns."""
    job, trial = job_of(case), GivenTrial(case.given)
    job.suggest(trial)
    given = trial.params
    cost = job.space.cost(job.candidate(given).spec)
    ways = {name: trainer_of(job, given, count, stacked=name == "stacked") for name in ("alone", "stacked")}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, trainer in ways.items():
            elapsed = _epoch_seconds(trainer)
            if turn:  # the first one warms up
                seconds[name].append(elapsed)
    epochs = job.training.epochs * job.training.steps_per_epoch / STEPS
    per_minute = {name: 60 * count / (epochs * statistics.median(took)) for name, took in seconds.items()}
    row = {
        "case": case.name,
        "params": cost.params,
        "step_mflop": round(cost.train_step_flops / 1e6, 2),
        "members": count,
        "alone_per_minute": round(per_minute["alone"], 1),
        "stacked_per_minute": round(per_minute["stacked"], 1),
        "ratio": round(per_minute["stacked"] / per_minute["alone"], 2),
    }
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return row


def job_of(case: Case) -> TrainingJob:
    """The example's, with every size that is measured, and nothing searched beside the architecture."""
    found = sweep_of(load_example(case.example)).job()
    if not isinstance(found, TrainingJob):
        raise TypeError(f"example {case.example}: expected one that trains")
    space: Any = found.space
    widths = tuple(sorted({value for name, value in case.given.items() if name.startswith("width")}))
    return replace(
        found,
        space=replace(space, widths=widths, batch_size=case.batch),
        training=replace(found.training, batch_size=case.batch),
        choices=TrainingChoices(),
        resources=Resources(gpus=1.0 if torch.cuda.is_available() else 0.0),
    )


def trainer_of(job: TrainingJob, given: Mapping[str, Any], count: int, *, stacked: bool) -> Any:
    """A trainer of so many members, each with a seed and batches of its own."""
    members = Members(seeds=count, stacked=stacked)
    training = replace(job.training, steps_per_epoch=STEPS, epochs=1000, members=members)
    return replace(job, training=training).trainer(given)


def _epoch_seconds(trainer: Any) -> float:
    is_cuda = torch.cuda.is_available()
    clock = time.perf_counter if is_cuda else time.process_time
    started = clock()
    trainer.run_epoch()
    if is_cuda:
        torch.cuda.synchronize()
    return clock() - started


if __name__ == "__main__":
    main()
