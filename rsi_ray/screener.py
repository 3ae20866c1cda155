"""Ray shell: candidates are screened at their initialisation in a fresh process, under a lease of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rsi_ray.fresh_process import in_fresh_process
from rsi_ray.training_job import TrainingJob
from rsi_ray.zero_cost import Screened, screen, screening_claim
from safety import (
    Allow,
    Authority,
    LeaseKeeper,
    Request,
    SafetyError,
    request_digest,
)


def screen_in_fresh_process(
    authority: Authority,
    job: TrainingJob,
    configs: Sequence[Mapping[str, Any]],
    *,
    best: int,
    proxies: Sequence[str],
    sweep: str,
) -> list[Screened]:
    """The best candidates by the mean rank of some proxies, best first; for a training step of each or less.

    Args:
        authority: the governor's client.
        job: what they are candidates of; its seed is that of weights and batch.
        configs: of the candidates.
        best: how many are returned.
        proxies: by name.
        sweep: that pays for it; it is open.

    Raises:
        SafetyError: the limits or the budgets don't admit it, or its lease was lost.
        EvaluationError: its process died.
    """
    return in_fresh_process(
        _screen_alone, authority, job, list(configs), best=best, proxies=tuple(proxies), sweep=sweep,
        what=f"sweep {sweep}: the screening", cpus=job.resources.cpus,
        gpus=max(job.placement(config).gpus for config in configs),
    )  # fmt: skip


def _screen_alone(
    keeper_of: Callable[[Authority], LeaseKeeper], authority: Authority, *arguments: Any, **keywords: Any
) -> list[Screened]:
    return screen_under_lease(authority, keeper_of(authority), *arguments, **keywords)


def screen_under_lease(
    authority: Authority,
    keeper: LeaseKeeper,
    job: TrainingJob,
    configs: Sequence[Mapping[str, Any]],
    *,
    best: int,
    proxies: Sequence[str],
    sweep: str,
) -> list[Screened]:
    """Screen in this process: reserved, begun and settled as every training is.

    Raises:
        SafetyError: see `screen_in_fresh_process`.
    """
    digest = request_digest({"configs": [dict(config) for config in configs], "proxies": list(proxies)})
    key = f"{sweep}/screening-{digest[:12]}"
    job.digest()  # under the lease the data would count as the candidates' memory
    claim = screening_claim(job, configs, proxies)
    verdict = authority.readmit(Request(key=key, digest=digest, sweep=sweep, claim=claim))
    if not isinstance(verdict, Allow):
        raise SafetyError(f"{key}: {verdict.reason}")
    grant = keeper.begin(key, digest, str(os.getpid()), None)
    try:
        with keeper.computing():
            return screen(job, configs, best=best, seed=job.seed, proxies=proxies)
    finally:
        usage = grant.used(reports=1, elapsed_ms=keeper.elapsed_ms())
        keeper.end()
        authority.settle(grant.lease, grant.fence, usage)
