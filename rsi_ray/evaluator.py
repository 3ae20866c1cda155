"""Ray shell: the evaluator, a fresh process under a lease of its own; only its numbers count."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from rsi_ray.cuda_memory import CudaMemory
from rsi_ray.errors import EvaluationError
from rsi_ray.evaluation import Subject, evaluation_claim, evidence_of, measurements
from rsi_ray.evidence import Discrepancy, Evidence, Measurement, discrepancies
from rsi_ray.job import TrainingJob
from safety import (
    Allow,
    ArtifactError,
    Authority,
    Grant,
    KernelTimer,
    LeaseKeeper,
    Report,
    Request,
    SafetyError,
    Usage,
    Verdict,
    request_digest,
)
from safety.kernel import bury_children, parent_runs
from safety.resources import resident_bytes

# makes Ray start a process for it: no worker has run in this environment before
FRESH = "RSI_RAY_EVALUATION"
# rules of its incidents
DISCREPANCY, EVALUATION = "discrepancy", "evaluation"


class Evaluating(Authority, Protocol):
    """What an evaluator asks: a `Governor`, or the client of its actor."""

    def judge_capability(self, sweep: str, key: str, domains: Mapping[str, object]) -> Verdict:
        """Judge an evaluator's scores of a trial against its sweep's ceilings."""
        ...

    def record_incident(self, sweep: str, key: str, rule: str, reason: str) -> None:
        """Write an incident into the audit."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What the search was told of a subject.

    Attributes:
        trial: key of its trial in the ledger.
        score: its last one.
        domains: per domain.
        selected_from: candidates among which it was the best.
    """

    trial: str
    score: float
    domains: Mapping[str, float] = field(default_factory=dict)
    selected_from: int = 1


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluator found.

    Attributes:
        evidence: its numbers.
        discrepancies: in what was reported; each is an incident in the audit.
        verdict: of the ceilings on the weights' own scores, and of each measurement as a report; a denial is
            an incident.
    """

    evidence: Evidence
    discrepancies: tuple[Discrepancy, ...]
    verdict: Verdict


def evaluate_in_fresh_process(
    authority: Evaluating,
    job: TrainingJob,
    subject: Subject,
    reported: Reported,
    *,
    sweep: str,
    cpus: int = 1,
) -> Evaluation:
    """Evaluate on the cluster, in a process that did nothing before and nothing after.

    Args:
        authority: the governor; its client, since another process asks it.
        job: what the subject is a candidate of.
        subject: what is evaluated; its file lies where every node reads it.
        reported: what the search was told.
        sweep: that pays for it; it is open.
        cpus: of the process.

    Raises:
        SafetyError: the limits or the budgets don't admit it, or its lease was lost.
        ArtifactError: the weights aren't what they are said to be.
        EvaluationError: there are no numbers, or its process died.
    """
    run = ray.remote(max_calls=1, max_retries=0)(_evaluate_alone).options(
        num_cpus=cpus, num_gpus=job.gpus, runtime_env={"env_vars": {FRESH: os.urandom(8).hex()}}
    )
    running = run.remote(authority, job, subject, reported, sweep, cpus)
    try:
        evaluation: Evaluation = ray.get(running)
    except RayTaskError as error:
        if isinstance(error.cause, SafetyError | EvaluationError):
            raise error.cause from None
        cause = error.cause
        line = "".join(str(cause).strip().splitlines()[-1:])
        raise EvaluationError(
            f"sweep {sweep}: its evaluation failed: {type(cause).__name__}: {line}"
        ) from error
    except RayError as error:
        line = str(error).strip().splitlines()[0]
        raise EvaluationError(f"sweep {sweep}: the evaluator's process died: {line}") from None
    except BaseException:  # whoever waits is interrupted: nobody would hear the answer
        ray.cancel(running, force=True)
        raise
    return evaluation


def _evaluate_alone(
    authority: Evaluating, job: TrainingJob, subject: Subject, reported: Reported, sweep: str, cpus: int
) -> Evaluation:
    bury_children()
    torch.set_num_threads(cpus)
    keeper = LeaseKeeper(
        authority, KernelTimer(), supervised=parent_runs(), memory=resident_bytes, device=CudaMemory()
    )
    return evaluate_under_lease(authority, keeper, job, subject, reported, sweep=sweep)


def evaluate_under_lease(
    authority: Evaluating,
    keeper: LeaseKeeper,
    job: TrainingJob,
    subject: Subject,
    reported: Reported,
    *,
    sweep: str,
) -> Evaluation:
    """Evaluate in this process, through the gates that every training passes.

    What was reported is held against the weights' own scores before anything is trained again; so are the
    ceilings. Each measurement is a report: where one is denied, nothing more is trained.

    Raises:
        SafetyError: see `evaluate_in_fresh_process`.
        EvaluationError: a score is no number.
    """
    key, grant = _begun(authority, keeper, job, subject, sweep)
    scoring, begun = measurements(job, subject), 0
    found: list[Measurement] = []
    wrong: tuple[Discrepancy, ...] = ()
    verdict: Verdict = Allow()
    try:
        while begun < grant.claim.reports and isinstance(verdict, Allow):
            begun += 1
            with keeper.computing():
                found.append(next(scoring))
            if begun == 1:
                wrong = _false_reports(authority, evidence_of(job, subject, found), reported, sweep)
                verdict = authority.judge_capability(sweep, reported.trial, found[0].domains)
            if isinstance(verdict, Allow):
                usage = grant.used(reports=begun, elapsed_ms=keeper.elapsed_ms())
                verdict = authority.report(key, _report(found[-1], usage))
    except (ArtifactError, EvaluationError) as error:
        authority.record_incident(sweep, reported.trial, EVALUATION, str(error))
        raise
    finally:
        # a measurement that was begun is charged whole, however it ended
        usage = grant.used(reports=begun, elapsed_ms=keeper.elapsed_ms())
        keeper.end()
        authority.settle(grant.lease, grant.fence, usage)
    return Evaluation(evidence=evidence_of(job, subject, found), discrepancies=wrong, verdict=verdict)


def _begun(
    authority: Evaluating, keeper: LeaseKeeper, job: TrainingJob, subject: Subject, sweep: str
) -> tuple[str, Grant]:
    """The evaluation's lease and its key; again for the same weights, it is another attempt at the same."""
    key, digest = f"{sweep}/evaluation-{subject.digest[:12]}", request_digest(subject.config)
    claim = evaluation_claim(job, subject)
    verdict = authority.readmit(Request(key=key, digest=digest, sweep=sweep, claim=claim))
    if not isinstance(verdict, Allow):
        raise SafetyError(f"{key}: {verdict.reason}")
    return key, keeper.begin(key, digest, str(os.getpid()), job.measure(subject.config))


def _false_reports(
    authority: Evaluating, evidence: Evidence, reported: Reported, sweep: str
) -> tuple[Discrepancy, ...]:
    """What was reported and isn't so; each is recorded as an incident."""
    wrong = discrepancies(
        reported.score, evidence, domains=reported.domains, selected_from=reported.selected_from
    )
    for one in wrong:
        authority.record_incident(sweep, reported.trial, DISCREPANCY, one.reason)
    return wrong


def _report(found: Measurement, usage: Usage) -> Report:
    return Report(score=found.score, domains=found.domains, usage=usage)
