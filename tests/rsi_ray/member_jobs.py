"""Jobs of each space with several members, small enough to be trained in a moment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rsi_ray.member_trainer import MemberTrainer
from rsi_ray.members import Members
from rsi_ray.tasks.task import Batch
from rsi_ray.training import Training
from rsi_ray.training_job import TrainingJob
from search_spaces import ConvSpace, ImageHead, MLPSpace, TransformerSpace
from tests.rsi_ray.test_train import Echo
from tests.rsi_ray.test_training_job import CONFIG, TASK

MEMBERS = Members(learning_rates=(1e-3, 1e-2), seeds=3)
TRAINING = Training(epochs=2, steps_per_epoch=4, batch_size=8, warmup_steps=2, members=MEMBERS)


class Stripes:
    """Images of 8 x 8 pixels, whose answer is where they are brightest."""

    heads = (ImageHead(name="stripes", classes=2, channels=1, height=8, width=8),)
    holdout_size = 40
    digest = "stripes"

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        images = rng.normal(size=(size, 1, 8, 8)).astype(np.float32)
        answers = (images[:, 0, :4].sum((1, 2)) > images[:, 0, 4:].sum((1, 2))).astype(np.int64)
        return {"stripes": Batch(inputs=images, targets=answers)}

    def holdout(self) -> dict[str, Batch]:
        return self.batch(np.random.default_rng(99), self.holdout_size)


TRANSFORMER = TransformerSpace(
    heads=Echo.heads,
    batch_size=8,
    vocab=16,
    depth=(2, 2),
    widths=(16,),
    head_sizes=(8,),
    kv_groups=(1,),
    ffn_ratio=(2, 2),
    ffn_kinds=("swiglu",),
    norms=("rmsnorm",),
    positions=("rotary",),
    tied=(True,),
)
CONV = ConvSpace(
    heads=Stripes.heads,
    batch_size=8,
    stages=(1, 1),
    depth=(1, 1),
    widths=(16,),
    kernel_sizes=(3,),
    expansions=(2,),
    depthwise=(True,),
    squeeze_excite=(True,),
    dropouts=(0.0,),
)
MLP = MLPSpace(heads=TASK.heads, batch_size=8, depth=(1, 1), widths=(16,), dropouts=(0.0,))
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "transformer": (TRANSFORMER, Echo(), {"depth": 2, "ffn_ratio": 2}),
    "conv": (CONV, Stripes(), {}),
    "mlp": (MLP, TASK, CONFIG),
}


def job_of(case: str, *, members: Members = MEMBERS, **changes: Any) -> tuple[TrainingJob, dict[str, Any]]:
    """A job of a space, and the configuration of a candidate."""
    space, task, config = CASES[case]
    training = replace(TRAINING, members=members, **changes)
    job = TrainingJob(space=space, load_task=lambda: task, training=training, seed=3, trial_seconds=60)
    return job, config


def trainers(case: str, *, stacked: bool, **changes: Any) -> MemberTrainer:
    """A trainer of all members."""
    job, config = job_of(case, members=replace(MEMBERS, stacked=stacked), **changes)
    trainer = job.trainer(config)
    if not isinstance(trainer, MemberTrainer):
        raise TypeError("expected members")
    return trainer
