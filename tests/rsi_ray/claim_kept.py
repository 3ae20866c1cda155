"""Fails where a training takes more memory than was claimed: `python -m tests.rsi_ray.claim_kept WHAT`."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from rsi_ray.members import Members
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from rsi_ray.training import Training
from rsi_ray.training_job import TrainingJob
from rsi_ray.zero_cost import screen, screening_claim
from safety.resources import is_over, resident_bytes
from search_spaces import MLPSpace

CONFIG = {"activation": "relu", "norm": "none", "residual": False}
TASK = breast_cancer_task(BreastCancerOptions(holdout_size=32))


def job_of(width: int, layers: int, members: Members) -> TrainingJob:
    space = MLPSpace(heads=TASK.heads, batch_size=8, depth=(layers, layers), widths=(width,), dropouts=(0.0,))
    training = Training(epochs=2, steps_per_epoch=2, batch_size=8, members=members)
    return TrainingJob(space=space, load_task=lambda: TASK, training=training, seed=3, trial_seconds=60)


def state(job: TrainingJob) -> None:
    """Keep a state in the middle, restore it, and export the weights."""
    with tempfile.TemporaryDirectory() as folder:
        run, path = job.begin(CONFIG), Path(folder) / "state"
        run.next_report()
        run.save(path)
        run.next_report()
        run.restore(path)
        run.next_report()
        run.export(path)


def stack(job: TrainingJob) -> None:
    """Train members as one batch."""
    run = job.begin(CONFIG)
    run.next_report()
    run.next_report()


def screening(job: TrainingJob) -> None:
    """Look at a candidate by every proxy."""
    screen(job, [CONFIG], best=1, seed=0)


THREE = Members(seeds=3, stacked=True)
CASES: dict[str, tuple[Callable[[TrainingJob], None], int, int, Members]] = {
    "state": (state, 6144, 2, Members()),
    "stack": (stack, 2048, 4, THREE),
    "one_matrix": (stack, 4096, 2, THREE),
    "screening": (screening, 6144, 2, Members()),
}


def main(what: str) -> None:
    """Train as asked, and fail where more was taken than a worker would be let take."""
    torch.set_num_threads(1)
    act, width, layers, members = CASES[what]
    act(job_of(16, layers, members))  # what loads late is loaded
    job = job_of(width, layers, members)
    claim = screening_claim(job, [CONFIG]) if act is screening else job.price(CONFIG)
    before, over = resident_bytes(), threading.Event()
    grown = [0]

    def look() -> None:
        while not over.wait(0.002):
            grown.append(resident_bytes() - before)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    act(job)
    over.set()
    looking.join()
    told = f"grew by {max(grown):,}, claimed {claim.memory_bytes:,}"
    if is_over(claim, max(grown)) or max(grown) < claim.memory_bytes / 2:
        sys.exit(told)


if __name__ == "__main__":
    main(sys.argv[1])
