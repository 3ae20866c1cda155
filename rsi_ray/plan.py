"""Everything that one generation needs in order to run, checked before anything starts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from ray.tune.schedulers import TrialScheduler

from rsi_ray.alerts import AlertsConfig
from rsi_ray.artifact_store import ArtifactStore, Place
from rsi_ray.errors import SweepError
from rsi_ray.job import Job
from rsi_ray.objectives import SCORE
from rsi_ray.placement import Resources, TooLarge
from rsi_ray.random_draws import RANDOM_DRAWS, random_config
from rsi_ray.states import CHECKPOINT_SECONDS
from safety import Allow, Deny, Limits, Verdict, judge_claim
from search_spaces.space import Suggests


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run.

    Attributes:
        name: of its run, unique in its storage.
        sweep: name on its ledger, where runs share one; "" for the run's own.
        lineage: that its improvement is judged in; None for one of its own.
        folder: of everything that the sweep leaves.
        artifacts: store that workers write into, and that the folder is repeated in; None for the folder.
        ledger_url: of the ledger that binds it.
        ledger_named: whether it must be this ledger; otherwise it is the one that the cluster's governor
            keeps, where there is a governor.
        governor_key: public key that the governor must prove; "" for any.
        checkpoints: folders of the governor's host that it signs the audit into as well.
        alerts: who is told where its lineage is shut down.
        limits: its limits.
        space: what is searched.
        job: what a candidate does.
        sampler: proposes.
        reports: of a full training.
        trials: candidates that are trained, those of the runs that this one resumes included.
        scheduler: makes the scheduler that stops early or mutates.
        objectives: `score`, and what is to be small beside it.
        baseline: full configuration that is trained first and alone; None for none.
        enqueued: full configurations that are trained before the sampler is asked.
        earlier: trials of an earlier study that the sampler is told of.
        concurrent: trials at a time; None for as many as fit.
        resources: of one trial.
        keep_weights: best candidates whose weights are kept.
        seconds: after so many nothing more is started and the sweep ends; None for no end.
        checkpoint_bytes: what its weights and checkpoints may take on disk; None for no quota.
        checkpoint_seconds: between two states of a candidate that another node may go on from; None for none.
        max_failures: candidates that failed in a row, after which the sweep ends.
        seed: of the draws that are not the sampler's.
        resumed: whether its folder holds a run that was stopped.
        about: what is written to run.json, for replays.
    """

    name: str
    folder: Path
    ledger_url: str
    limits: Limits
    space: Suggests[Any]
    job: Job
    sampler: optuna.samplers.BaseSampler
    reports: int
    trials: int
    scheduler: Callable[[], TrialScheduler]
    sweep: str = ""
    objectives: tuple[str, ...] = (SCORE,)
    baseline: dict[str, Any] | None = None
    enqueued: tuple[dict[str, Any], ...] = ()
    earlier: tuple[FrozenTrial, ...] = ()
    concurrent: int | None = None
    resources: Resources = field(default_factory=Resources)
    keep_weights: int = 3
    seconds: int | None = None
    checkpoint_bytes: int | None = None
    checkpoint_seconds: int | None = CHECKPOINT_SECONDS
    max_failures: int = 3
    ledger_named: bool = True
    governor_key: str = ""
    checkpoints: tuple[Path, ...] = ()
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    lineage: str | None = None
    artifacts: ArtifactStore | None = None
    seed: int = 0
    resumed: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def on_ledger(self) -> str:
        """Name that its leases and budgets have on the ledger."""
        return self.sweep or self.name

    @property
    def stored(self) -> ArtifactStore | None:
        """Its run's folder in the store, where there is one."""
        return self.artifacts.at(self.name) if self.artifacts else None

    def kept_in(self, name: str) -> Place:
        """Where its workers write files of a kind: in the store, or its folder where there is none."""
        return self.stored.at(name) if self.stored else self.folder / name


def check_plan(plan: Plan) -> None:
    """Refuse what could only spin: a space, a baseline or an enqueued candidate over the ceilings.

    Raises:
        SweepError: one line that says which.
    """
    rng = random.Random(plan.seed)
    denials: list[Deny] = []
    for _ in range(RANDOM_DRAWS):
        verdict = judge_config(plan.limits, plan.job, random_config(plan.space, rng))
        if not isinstance(verdict, Deny):
            break
        denials.append(verdict)
    else:
        nearest = min(denials, key=lambda denial: sum(denial.excess.values()) if denial.excess else math.inf)
        raise SweepError(
            f"space: none of {RANDOM_DRAWS} random specs is under every ceiling; nearest: {nearest.reason}"
        )
    given = {f"enqueue {place}": config for place, config in enumerate(plan.enqueued, start=1)}
    if plan.baseline is not None:
        given["baseline"] = plan.baseline
    for what, config in given.items():
        verdict = judge_config(plan.limits, plan.job, config)
        if not isinstance(verdict, Allow):
            raise SweepError(f"{what}: {verdict.reason}")


def judge_config(limits: Limits, job: Job, config: Mapping[str, Any]) -> Verdict:
    """A configuration against the ceilings alone; one that can't be priced is denied."""
    try:
        claim = job.price(config)
    except TooLarge as error:
        return Deny("gpu_memory", str(error))
    except Exception as error:
        return Deny("price", f"it can't be priced: {type(error).__name__}: {error}")
    return judge_claim(limits, claim)
