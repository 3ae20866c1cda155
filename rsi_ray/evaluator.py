"""Ray shell: the evaluator, a fresh process under a lease of its own; only its numbers count."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import ray

from rsi_ray.crew import Assignment, ray_train
from rsi_ray.crew_evaluation import leading_under, measurements_together
from rsi_ray.errors import EvaluationError, GpuError, SweepError, TrainingError, WorkerLost
from rsi_ray.evaluation import Subject, evaluation_claim, evidence_of, measurements
from rsi_ray.evidence import Discrepancy, Evidence, Measurement, discrepancies
from rsi_ray.fresh_process import in_fresh_process
from rsi_ray.judged import Judged
from rsi_ray.training_job import TrainingJob
from safety import (
    Allow,
    ArtifactError,
    Authority,
    Grant,
    LeaseKeeper,
    Report,
    Request,
    SafetyError,
    Usage,
    Verdict,
    request_digest,
)
from safety.evaluations import Evaluated, key_of

# rules of its incidents
DISCREPANCY, EVALUATION = "discrepancy", "evaluation"


class Evaluating(Authority, Protocol):
    """What an evaluator asks: a `Governor`, or the client of its actor."""

    def judge_capability(self, sweep: str, key: str, domains: Mapping[str, object]) -> Verdict:
        """Judge an evaluator's scores of a trial against its sweep's ceilings."""
        ...

    def attest(self, lease: int, fence: int, evaluated: Evaluated) -> None:
        """Write down what was found under a lease."""
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

    @property
    def judged(self) -> Judged:
        """The same as it is written down."""
        told = "; ".join(one.reason for one in self.discrepancies)
        return Judged(evidence=self.evidence, verdict=self.verdict, discrepancy=told)


def evaluate_in_fresh_process(
    authority: Evaluating,
    job: TrainingJob,
    subject: Subject,
    reported: Reported,
    *,
    sweep: str,
) -> Evaluation:
    """Evaluate on the cluster, in a process that did nothing before and nothing after.

    What several workers train, as many score and train again; the process itself leads them.

    Args:
        authority: the governor; its client, since another process asks it.
        job: what the subject is a candidate of.
        subject: what is evaluated; its file lies where every node reads it, or its content is with it.
        reported: what the search was told.
        sweep: that pays for it; it is open.

    Raises:
        SafetyError: the limits or the budgets don't admit it, or its lease was lost.
        ArtifactError: the weights aren't what they are said to be.
        EvaluationError: there are no numbers, or its process died.
        SweepError: its node has a GPU that torch can't use.
    """
    placement = job.placement(subject.config)
    if placement.workers > 1:
        placement = replace(placement, cpus=0, gpus=0.0)
    return in_fresh_process(
        _evaluate_alone, authority, job, subject, reported,
        what=f"sweep {sweep}: the evaluator", cpus=placement.cpus, gpus=placement.gpus, sweep=sweep,
    )  # fmt: skip


def _evaluate_alone(
    keeper_of: Callable[[Authority], LeaseKeeper], authority: Evaluating, *arguments: Any, sweep: str
) -> Evaluation:
    try:
        return evaluate_under_lease(authority, keeper_of(authority), *arguments, sweep=sweep)
    except GpuError as error:  # another candidate would fare no better there
        raise SweepError(f"sweep {sweep}: the evaluator: {error}") from None
    except TrainingError as error:
        raise EvaluationError(f"sweep {sweep}: the evaluator: {error}") from None


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
        TrainingError: of several workers, one failed; of one that died the lease is left to be reaped.
    """
    key, grant = _begun(authority, keeper, job, subject, sweep)
    begun, settles = 0, True
    found: list[Measurement] = []
    wrong: tuple[Discrepancy, ...] = ()
    verdict: Verdict = Allow()
    try:
        scoring = _scoring(authority, keeper, job, subject, key)
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
        evidence = evidence_of(job, subject, found)
        evaluation = Evaluation(evidence=evidence, discrepancies=wrong, verdict=verdict)
        authority.attest(grant.lease, grant.fence, evaluation.judged.evaluated)
    except WorkerLost:
        settles = False  # it may compute until its own deadline
        raise
    except (ArtifactError, EvaluationError) as error:
        authority.record_incident(sweep, reported.trial, EVALUATION, str(error))
        raise
    finally:
        # a measurement that was begun is charged whole, however it ended
        usage = grant.used(reports=begun, elapsed_ms=keeper.elapsed_ms())
        keeper.end()
        if settles:
            authority.settle(grant.lease, grant.fence, usage)
    return evaluation


def _begun(
    authority: Evaluating, keeper: LeaseKeeper, job: TrainingJob, subject: Subject, sweep: str
) -> tuple[str, Grant]:
    """The evaluation's lease and its key; again for the same weights, it is another attempt at the same."""
    key, digest = key_of(sweep, subject.digest), request_digest(subject.config)
    claim = evaluation_claim(job, subject)
    verdict = authority.readmit(Request(key=key, digest=digest, sweep=sweep, claim=claim))
    if not isinstance(verdict, Allow):
        raise SafetyError(f"{key}: {verdict.reason}")
    return key, keeper.begin(key, digest, str(os.getpid()), job.measure(subject.config))


def _scoring(
    authority: Evaluating, keeper: LeaseKeeper, job: TrainingJob, subject: Subject, key: str
) -> Iterator[Measurement]:
    placement = job.placement(subject.config)
    if placement.workers == 1:
        return measurements(job, subject)
    sweep, _, trial = key.rpartition("/")
    assignment = Assignment(
        job=job,
        config=subject.config,
        authority=authority,
        grant=keeper.grant,
        placement=placement,
        sweep=sweep,
        trial=trial,
    )
    host = ray.util.get_node_ip_address()
    return measurements_together(
        job, subject, leading_under(ray_train(), assignment, host=host, elapsed_ms=keeper.elapsed_ms)
    )


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
