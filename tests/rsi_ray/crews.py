"""Candidates for several processes, and such processes without Ray: they meet by gloo."""

from __future__ import annotations

import multiprocessing
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch.distributed as dist

from rsi_ray.crew import Assignment
from rsi_ray.crew_worker import work
from rsi_ray.placement import Resources, Strategy
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from rsi_ray.training import Training
from rsi_ray.training_job import TrainingJob
from search_spaces import MLPSpace
from tests.ports import free_port

# neither is a multiple of two
ROWS, HOLDOUT = 9, 33
OPTIONS = BreastCancerOptions(holdout_size=HOLDOUT)
CONFIG = {"activation": "relu", "norm": "layernorm"}
load = partial(breast_cancer_task, OPTIONS)


def job(workers: int = 2, strategy: Strategy = "auto", epochs: int = 3) -> TrainingJob:
    space = MLPSpace(heads=load().heads, batch_size=ROWS, depth=(1, 1), widths=(16,), dropouts=(0.0,))
    training = Training(epochs=epochs, steps_per_epoch=4, batch_size=ROWS, warmup_steps=2, learning_rate=0.01)
    return TrainingJob(
        space=space,
        load_task=load,
        training=training,
        seed=3,
        trial_seconds=120,
        resources=Resources(workers=workers, strategy=strategy),
    )


def meet(rank: int, workers: int, port: int) -> None:
    """Make torch's default process group."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)


@dataclass
class Processes:
    """Workers as children of the test's process."""

    started: list[Any] = field(default_factory=list)

    def __call__(self, assignment: Assignment) -> Processes:
        port, fork = free_port(), multiprocessing.get_context("forkserver")
        fork.set_forkserver_preload([__name__])  # torch takes seconds to load, once
        failed = fork.Event()
        for rank in range(assignment.placement.workers):
            arguments = (assignment, rank, port, failed)
            self.started.append(fork.Process(target=_work, args=arguments, daemon=True))
            self.started[-1].start()
        threading.Thread(target=self._end_with_the_first, args=(failed,), daemon=True).start()
        return self

    def _end_with_the_first(self, failed: Any) -> None:
        """As Ray Train does: once one has failed, all are killed."""
        while not failed.wait(0.1):
            if not any(process.is_alive() for process in self.started):
                return
        time.sleep(0.5)
        for process in self.started:
            process.kill()

    def trouble(self) -> str:
        return "" if all(process.is_alive() for process in self.started) else "one has ended"

    def wait(self, seconds: float) -> None:
        self.ended_within(seconds)

    def ended_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        for process in self.started:
            process.join(max(0.0, until - time.monotonic()))
        return not any(process.is_alive() for process in self.started)

    def kill(self) -> None:
        for process in self.started:
            process.kill()
            process.join()


def _work(assignment: Assignment, rank: int, port: int, failed: Any) -> None:
    meet(rank, assignment.placement.workers, port)
    try:
        work(assignment, rank)
    except Exception:
        failed.set()
        time.sleep(60)  # an actor lives on when its training has failed
    dist.destroy_process_group()
