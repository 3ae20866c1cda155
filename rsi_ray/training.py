"""How candidates are trained, and what that will compute: arithmetic alone, exact before anything starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from rsi_ray.compilation import Compile
from rsi_ray.members import Members
from rsi_ray.scoring import LATENCY_FORWARDS
from search_spaces.cost import Cost

Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How every candidate of a sweep is trained; an epoch ends with an evaluation and a report.

    Attributes:
        epochs: reports of one full training.
        steps_per_epoch: optimizer steps per epoch.
        batch_size: samples per head and step; the batch size that the space prices.
        learning_rate: peak of the schedule.
        schedule: way from the peak to `final_share` of it; a constant one stays at the peak.
        warmup_steps: steps of linear rise to the peak, before the schedule.
        final_share: last learning rate as a share of the peak.
        weight_decay: AdamW's, on matrices only.
        max_grad_norm: gradients with a larger norm are scaled down to it.
        compile: whether steps are compiled: always, never, or where it pays.
        members: what of a candidate is trained side by side; one member if left out.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    epochs: int = 9
    steps_per_epoch: int = 30
    batch_size: int = 32
    learning_rate: float = 3e-3
    schedule: Schedule = "cosine"
    warmup_steps: int = 20
    final_share: float = 0.02
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    compile: Compile = "auto"
    members: Members = field(default_factory=Members)

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "batch_size"):
            _require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "max_grad_norm"):
            _require(name, getattr(self, name), 0 < getattr(self, name) < math.inf, "positive and finite")
        for name in ("warmup_steps", "weight_decay"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < math.inf, "zero or more")
        _require("final_share", self.final_share, 0 <= self.final_share <= 1, "from 0 to 1")
        schedules = get_args(Schedule)
        compiles = get_args(Compile)
        _require("compile", self.compile, self.compile in compiles, f"one of {', '.join(compiles)}")
        _require("schedule", self.schedule, self.schedule in schedules, f"one of {', '.join(schedules)}")


def _require(name: str, value: object, holds: bool, demand: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {demand}, not {value!r}")


def evaluation_flops(forward_flops: int, holdout_size: int, workers: int) -> int:
    """Return the FLOPs of one evaluation of one model by workers, each of equally many samples."""
    return -(-holdout_size // workers) * workers * forward_flops


def flops_after(
    epochs: int, cost: Cost, training: Training, holdout_size: int, *, latency: bool = False, workers: int = 1
) -> int:
    """Return the FLOPs of the first so many epochs: every training step and every evaluation of all members.


    `latency` adds the forwards that are timed at the end of the last epoch, of one member, by each of the
    workers; these evaluate equally many samples each, a few of them twice.
    """
    evaluation = evaluation_flops(cost.forward_flops, holdout_size, workers)
    timed = workers * LATENCY_FORWARDS * cost.forward_flops if latency and epochs >= training.epochs else 0
    epoch = training.steps_per_epoch * cost.train_step_flops + evaluation
    return training.members.count * epochs * epoch + timed


def planned_flops(
    cost: Cost, training: Training, holdout_size: int, *, latency: bool = False, workers: int = 1
) -> int:
    """Return the FLOPs of one full training: what a candidate must reserve before it starts."""
    return flops_after(training.epochs, cost, training, holdout_size, latency=latency, workers=workers)


def learning_rate_at(step: int, training: Training) -> float:
    """Return the learning rate of a step, counted from 0: linear warm-up, then the schedule."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    steps = training.epochs * training.steps_per_epoch
    done = min(1.0, (step - training.warmup_steps) / max(1, steps - training.warmup_steps))
    left = _SHARES_LEFT[training.schedule](done)
    return training.learning_rate * (training.final_share + (1 - training.final_share) * left)


_SHARES_LEFT: Mapping[Schedule, Callable[[float], float]] = {
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
    "constant": lambda _: 1.0,
}
