"""Trains a recorded candidate again, under the same limits, and compares the score."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from rsi_ray.job import Job
from rsi_ray.objectives import SCORE
from rsi_ray.runs import StoredTrial, circumstances
from safety import (
    Allow,
    Governor,
    KernelTimer,
    LeaseKeeper,
    Ledger,
    Limits,
    Request,
    SafetyError,
    Usage,
    request_digest,
)
from safety.governance import report_of


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A candidate's score then and now.

    Attributes:
        trial: RUN/NUMBER.
        reports: reports made, then as now.
        recorded, found: the scores.
        changed: what is not as it was: versions, data.
    """

    trial: str
    reports: int
    recorded: float
    found: float
    changed: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the scores are equal, to the bit."""
        return self.recorded == self.found

    def text(self) -> str:
        """One line for people, and one for each thing that has changed."""
        word = "the same" if self.same else "not the same"
        first = (
            f"{self.trial}: {self.found!r} after {self.reports} reports, recorded {self.recorded!r}: {word}"
        )
        return "\n".join([first, *(f"changed since: {what}" for what in self.changed)])


def replay(stored: StoredTrial, job: Job, limits: Limits, *, threads: int) -> Replay:
    """Train a trial of any run again from its record; it takes a lease as every trial does.

    Args:
        stored: the trial.
        job: what the candidates of its run do.
        limits: of its run.
        threads: of torch.

    Raises:
        SafetyError: the limits or the budgets don't admit it.
    """
    torch.set_num_threads(threads)
    ledger = Ledger(stored.about["ledger"])
    sweep = f"replay-{stored.run}-{stored.record['number']}-{os.getpid()}"
    governor = Governor(ledger)
    governor.open_sweep(sweep, limits)
    try:
        score = train_under_lease(
            governor, job, sweep=sweep, config=stored.record["config"], reports=stored.record["reports"]
        )
    finally:
        governor.close_sweep(sweep, {})
        ledger.close()
    return Replay(
        trial=f"{stored.run}/{stored.record['number']}",
        reports=stored.record["reports"],
        recorded=stored.record["score"],
        found=score,
        changed=_changes(stored, circumstances(job.digest())),
    )


def train_under_lease(
    governor: Governor, job: Job, *, sweep: str, config: Mapping[str, Any], reports: int
) -> float:
    """Train a candidate in this process, through the same gates as on a cluster; its last score.

    Raises:
        SafetyError: a gate refuses.
    """
    key, digest = f"{sweep}/replay", request_digest(config)
    verdict = governor.admit(Request(key=key, digest=digest, sweep=sweep, claim=job.price(config)))
    if not isinstance(verdict, Allow):
        raise SafetyError(f"{key}: {verdict.reason}")
    keeper = LeaseKeeper(governor, KernelTimer())
    grant = keeper.begin(key, digest, str(os.getpid()), job.measure(config))
    begun, score = 0, float("nan")

    def used(reports: int) -> Usage:
        return grant.used(reports=reports, elapsed_ms=keeper.elapsed_ms())

    try:
        run = _computing(keeper, lambda: job.begin(config))
        for begun in range(1, reports + 1):
            told = _computing(keeper, run.next_report)
            verdict = governor.report(key, replace(report_of(told, SCORE), usage=used(begun)))
            if not isinstance(verdict, Allow):
                raise SafetyError(f"{key}: {verdict.reason}")
            score = float(told["score"])
    finally:
        # a report that was begun is charged whole, however it ended
        usage = used(begun)
        keeper.end()
        governor.settle(grant.lease, grant.fence, usage)
    return score


def _computing(keeper: LeaseKeeper, compute: Callable[[], Any]) -> Any:
    with keeper.computing():
        return compute()


def _changes(stored: StoredTrial, now: Mapping[str, Any]) -> tuple[str, ...]:
    then = stored.about
    changes = [
        f"{name} {then[name]} is {now[name]}" for name in ("python", "data") if then[name] != now[name]
    ]
    for name, version in now["libraries"].items():
        if then["libraries"].get(name) != version:
            changes.append(f"{name} {then['libraries'].get(name)} is {version}")
    return tuple(changes)
