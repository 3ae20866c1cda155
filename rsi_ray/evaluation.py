"""The independent evaluation of a candidate: its weights, and further trainings, on the sealed part."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from rsi_ray.errors import EvaluationError
from rsi_ray.evidence import Evidence, Measurement
from rsi_ray.scoring import Scored, check_rows, rows_at_a_time, scored
from rsi_ray.tasks.task import Batch, sealed_part
from rsi_ray.train import train
from rsi_ray.training import evaluation_flops
from rsi_ray.training_job import TrainingJob, candidate_seed
from rsi_ray.weights import load_weights
from safety import Claim


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated.

    Attributes:
        config: the candidate's configuration.
        weights: its file, safetensors.
        digest: SHA-256 of the file, in hex.
        seeds: further trainings of the same configuration.
        content: of the file, where the evaluator can't read it; None where it can.
    """

    config: Mapping[str, Any]
    weights: Path
    digest: str
    seeds: int = 2
    content: bytes | None = field(default=None, repr=False)


def evaluation_claim(job: TrainingJob, subject: Subject) -> Claim:
    """What an evaluation takes: further trainings, and an evaluation of each model; a report for each."""
    one, models = job.price(subject.config), 1 + subject.seeds
    workers = job.placement(subject.config).workers
    evaluations = models * evaluation_flops(one.forward_flops, job.task.holdout_size, workers)
    return replace(
        one,
        train_flops=subject.seeds * one.train_flops + evaluations,
        wall_ms=models * one.wall_ms,
        gpu_ms=models * one.gpu_ms,
        reports=models,
        models=models,
    )


def measurements(job: TrainingJob, subject: Subject) -> Iterator[Measurement]:
    """Yield the scores of the weights, then of each further training as it ends.

    Raises:
        ArtifactError: the file isn't what it is said to be.
        EvaluationError: a score is no number, or the samples aren't those that were priced.
    """
    yield evaluate_weights(
        job, subject.config, subject.weights, digest=subject.digest, content=subject.content
    )
    yield from evaluate_seeds(job, subject.config, further_seeds(job, subject))


def further_seeds(job: TrainingJob, subject: Subject) -> list[int]:
    """Those that the subject is trained again from, each in place of the job's."""
    return [job.seed + 1 + index for index in range(subject.seeds)]


def evidence_of(job: TrainingJob, subject: Subject, found: Sequence[Measurement]) -> Evidence:
    """What the measurements of a subject prove."""
    _, is_sealed = sealed_part(job.task)
    return Evidence(
        config=dict(subject.config),
        weights=subject.digest,
        task=job.digest(),
        sealed=is_sealed,
        train_flops=job.price(subject.config).train_flops,
        measurements=tuple(found),
    )


def evaluate_weights(
    job: TrainingJob, config: Mapping[str, Any], weights: Path, *, digest: str, content: bytes | None = None
) -> Measurement:
    """Score a file of weights on the sealed part, in a model that is built from the configuration.

    Args:
        job: what the candidate is one of.
        config: its configuration.
        weights: safetensors.
        digest: SHA-256 of the file, in hex.
        content: of the file, where it isn't on this machine.

    Raises:
        ArtifactError: it is another file, a link, no safetensors, or of another architecture.
        EvaluationError: a score is no number, or the samples aren't those that were priced.
    """
    seed = candidate_seed(job.seed, config)
    model = job.model(config, seed)
    load_weights(model, weights, digest, content)
    return _measured(job, config, model, seed)


def evaluate_seeds(
    job: TrainingJob, config: Mapping[str, Any], seeds: Sequence[int]
) -> Iterator[Measurement]:
    """Train the configuration again for each seed, to the end, and score each model on the sealed part.

    Args:
        job: what the candidate is one of; its training and its parent are those that it had.
        config: its configuration.
        seeds: each in place of the job's: first weights, batches and dropout follow from it.

    Raises:
        EvaluationError: a score is no number, or the samples aren't those that were priced.
    """
    for seed in seeds:
        trainer = replace(job, seed=seed).trainer(config)
        own = candidate_seed(seed, config)
        for _ in train(trainer, job.candidate(config).training):
            pass
        yield _measured(job, config, trainer.model, own)


def _measured(job: TrainingJob, config: Mapping[str, Any], model: nn.Module, seed: int) -> Measurement:
    batches = sealed_batches(job)
    rows = rows_at_a_time(job.device, job.candidate(config).training.batch_size)
    return measurement_of(seed, scored(model, batches, job.device, rows))


def sealed_batches(job: TrainingJob) -> Mapping[str, Batch]:
    """The samples that an evaluation scores, by domain.

    Raises:
        EvaluationError: they aren't those that were priced.
    """
    batches, _ = sealed_part(job.task)
    try:
        check_rows(batches, job.task.holdout_size, job.shapes)
    except ValueError as error:
        raise EvaluationError(f"sealed part: {error}") from None
    return batches


def measurement_of(seed: int, found: Mapping[str, Scored]) -> Measurement:
    """What was found of a model, by domain.

    Raises:
        EvaluationError: a score is no number.
    """
    domains = {name: one.score for name, one in found.items()}
    if not all(map(math.isfinite, domains.values())):
        raise EvaluationError(f"seed {seed}: scores {domains}, expected finite numbers")
    return Measurement(
        seed=seed,
        score=sum(domains.values()) / len(domains),
        domains=domains,
        errors={name: one.error for name, one in found.items()},
    )
