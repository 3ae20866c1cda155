"""The independent evaluation of a candidate that several processes train together: by as many."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from rsi_ray.crew import Assignment, Crew, Launch
from rsi_ray.evaluation import Subject, further_seeds, measurement_of, sealed_batches
from rsi_ray.evidence import Measurement
from rsi_ray.training_job import TrainingJob, candidate_seed
from rsi_ray.weights import check_weights, read_content, tensors_of
from safety import ArtifactError

Led = Callable[[TrainingJob], AbstractContextManager[Crew]]


def leading_under(launch: Launch, assignment: Assignment, *, host: str, elapsed_ms: Callable[[], int]) -> Led:
    """Workers that have built a job's candidate, of one job after the other under one lease.

    Args:
        launch, host, elapsed_ms: see `Crew.begin`.
        assignment: what they are told; each time with another job.
    """

    @contextmanager
    def led(job: TrainingJob) -> Iterator[Crew]:
        crew = Crew()
        try:
            crew.begin(launch, replace(assignment, job=job), host=host, elapsed_ms=elapsed_ms)
            yield crew
        finally:
            crew.end()

    return led


def measurements_together(job: TrainingJob, subject: Subject, led: Led) -> Iterator[Measurement]:
    """Yield what `evaluation.measurements` does, each by workers of its own.

    Args:
        job: what the subject is a candidate of.
        subject: what is evaluated.
        led: gives the workers that have built the subject as a candidate of a job.

    Raises:
        ArtifactError: the file isn't what it is said to be.
        EvaluationError: a score is no number, or the samples aren't those that were priced.
        TrainingError: a worker failed.
    """
    sealed_batches(job)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        weights.write_bytes(_content_of(job, subject))
        yield _measured(job, subject, led, partial(Crew.give, path=weights))
    for seed in further_seeds(job, subject):
        yield _measured(replace(job, seed=seed), subject, led, partial(_train, job, subject))


def _content_of(job: TrainingJob, subject: Subject) -> bytes:
    """The bytes of the subject's file, whose tensors are those of its configuration."""
    content = read_content(subject.weights, subject.digest, subject.content)
    with torch.device("meta"):
        model = job.space.build(job.candidate(subject.config).spec)
    try:
        check_weights(model, tensors_of(subject.weights, content))
    except ValueError as error:
        raise ArtifactError(f"artifact {subject.weights}: {error}") from None
    return content


def _train(job: TrainingJob, subject: Subject, crew: Crew) -> None:
    for _ in range(job.candidate(subject.config).training.epochs):
        crew.next_report()


def _measured(job: TrainingJob, subject: Subject, led: Led, prepare: Callable[[Crew], None]) -> Measurement:
    with led(job) as crew:
        prepare(crew)
        found = crew.measure()
    return measurement_of(candidate_seed(job.seed, subject.config), found)
