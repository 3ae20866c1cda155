"""A sweep as it was asked for: what is wrong with it, and the plan that runs it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial
from ray.tune.schedulers import TrialScheduler

from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.ledgers import LEDGER_FILE, from_anywhere
from rsi_ray.objectives import problems_of_objectives
from rsi_ray.placement import AUTO, BY_WORKERS, MOST_GPUS, MOST_WORKERS
from rsi_ray.places import problems_of_places
from rsi_ray.plan import Plan
from rsi_ray.runs import circumstances, earlier_of
from rsi_ray.samplers import Guarded, sampler_of
from rsi_ray.schedulers import SchedulerOptions, mutable_distributions, scheduler_of
from rsi_ray.training_job import TrainingJob
from safety.names import plain_name
from search_spaces.given_trial import spec_from
from search_spaces.tabular import TabularSpace

if TYPE_CHECKING:
    from rsi_ray.api import Sweep


# None where it may be left out
_COUNTS = ("trials", "concurrent", "seconds", "trial_seconds", "cpus", "gpu_memory", "max_failures")


def problems_of(sweep: Sweep) -> list[str]:
    """What keeps a sweep from running, a line each."""
    problems = problems_of_objectives(sweep.objectives)
    if sweep.sampler == "cmaes" and len(sweep.objectives) > 1:
        problems.append("sampler: cmaes takes one objective; nsga2, evolution and tpe take several")
    if isinstance(sweep.space, TabularSpace) and "latency" in sweep.objectives:
        problems.append("objectives: latency, which a table's look-up doesn't have")
    problems += _problems_of_name("name", sweep.name)
    problems += problems_of_places(sweep.storage, sweep.artifacts, sweep.ledger)
    problems += [] if sweep.lineage is None else _problems_of_name("lineage", sweep.lineage)
    for name in _COUNTS:
        value = getattr(sweep, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            problems.append(f"{name}: {value!r}, expected a whole number from 1")
    return problems + _problems_of_resources(sweep)


def _problems_of_resources(sweep: Sweep) -> list[str]:
    problems = []
    if sweep.gpus != AUTO and not (isinstance(sweep.gpus, int | float) and 0 <= sweep.gpus <= MOST_GPUS):
        expected = f"expected a number from 0 to {MOST_GPUS}, or {AUTO} ({BY_WORKERS})"
        problems.append(f"gpus: {sweep.gpus!r}, {expected}")
    if sweep.workers != AUTO and sweep.workers not in range(1, MOST_WORKERS + 1):
        problems.append(f"workers: {sweep.workers!r}, expected 1 to {MOST_WORKERS}, or {AUTO}")
    if sweep.workers != 1 and isinstance(sweep.gpus, int | float) and 0 < sweep.gpus < 1:
        problems.append(f"workers: each takes whole GPUs, not {sweep.gpus} of one")
    if sweep.training.members.count > 1 and sweep.workers != 1:
        problems.append("workers: members of a candidate are trained by one")
    if sweep.training.compile == "always" and sweep.workers != 1:
        problems.append("training.compile: always, which takes workers: 1; several are never compiled")
    if isinstance(sweep.space, TabularSpace) and sweep.workers != 1:
        problems.append("workers: a table's look-up takes one")
    return problems


def _problems_of_name(what: str, name: str) -> list[str]:
    try:
        plain_name(name)
    except ValueError as error:
        return [f"{what}: {name!r:.80}: {error}"]
    return []


def plan_of(sweep: Sweep, *, enqueued: Sequence[dict[str, Any]], told: Sequence[FrozenTrial]) -> Plan:
    """Everything but the folder of a run.

    Args:
        sweep: what is asked for.
        enqueued: full configurations that are trained first.
        told: candidates that were measured elsewhere.

    Raises:
        ValueError, TypeError: a part of it doesn't fit.
    """
    job = sweep.job()
    storage = Path(sweep.storage).expanduser().resolve()
    reports = sweep.training.epochs if isinstance(job, TrainingJob) else 1
    return Plan(
        name=sweep.name,
        lineage=sweep.lineage,
        folder=storage / sweep.name,
        artifacts=ArtifactStore(uri=sweep.artifacts) if sweep.artifacts else None,
        ledger_url=from_anywhere(sweep.ledger or f"sqlite:///{storage / LEDGER_FILE}"),
        ledger_named=sweep.ledger is not None,
        governor_key=sweep.governor_key or "",
        checkpoints=tuple(Path(folder).expanduser().absolute() for folder in sweep.checkpoints),
        alerts=sweep.checked_alerts(),
        limits=sweep.checked_limits(),
        space=job,
        job=job,
        sampler=_sampler(sweep),
        reports=reports,
        trials=sweep.trials,
        scheduler=scheduler_maker(sweep, job, reports),
        objectives=tuple(sweep.objectives),
        baseline=None if sweep.baseline is None else dict(spec_from(job, sweep.baseline)[1]),
        enqueued=tuple(enqueued),
        earlier=(*earlier_of(sweep.warm_start, storage, job, sweep.objectives), *told),
        concurrent=sweep.concurrent,
        resources=sweep.resources,
        keep_weights=sweep.keep_weights,
        seconds=sweep.seconds,
        checkpoint_bytes=sweep.checkpoint_bytes,
        checkpoint_seconds=sweep.checkpoint_seconds,
        max_failures=sweep.max_failures,
        seed=sweep.seed,
        about={
            **sweep.about,
            **circumstances(job.digest()),
            "objectives": list(sweep.objectives),
            "training": repr(sweep.training),
            "hyperparameters": repr(sweep.hyperparameters),
            "seed": sweep.seed,
            **({"parent": sweep.parent.about()} if sweep.parent else {}),
        },
    )


def scheduler_maker(sweep: Sweep, job: Any, reports: int) -> Callable[[], TrialScheduler]:
    """What makes a sweep's scheduler, for trainings of so many reports."""
    if callable(sweep.scheduler):
        return sweep.scheduler
    name = sweep.scheduler or ("asha" if len(sweep.objectives) == 1 else "fifo")
    options = SchedulerOptions(
        reports=reports,
        grace_period=sweep.grace_period,
        reduction_factor=sweep.reduction_factor,
        interval=sweep.interval,
        mutable=mutable_distributions(job, random.Random(sweep.seed)),
    )
    return partial(scheduler_of, name, options)


def _sampler(sweep: Sweep) -> optuna.samplers.BaseSampler:
    if isinstance(sweep.sampler, str):
        return sampler_of(sweep.sampler, sweep.seed)
    return Guarded(sweep.sampler, seed=sweep.seed)
