"""A training job of several workers that waits where a test tells it to."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from rsi_ray.tasks.task import Batch
from rsi_ray.training_job import TrainingJob
from tests.rsi_ray.crews import job, load


@dataclass
class Waiting:
    """The task, whose batches wait while the folder holds a file `hold`, and which counts who draws."""

    folder: Path

    def __post_init__(self) -> None:
        task = load()
        self._task = task
        self.heads, self.holdout_size, self.digest = task.heads, task.holdout_size, task.digest
        self.holdout = task.holdout

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        while (self.folder / "hold").exists():
            (self.folder / "held").touch()
            time.sleep(0.05)
        return self._task.batch(rng, size)


def waiting_job(folder: Path, strategy: str) -> TrainingJob:
    return replace(job(strategy=strategy), load_task=partial(Waiting, folder))  # type: ignore[arg-type]
