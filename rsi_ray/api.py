"""A sweep in Python: what `rsi-ray run` does, for scripts and notebooks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import TrialScheduler

from rsi_ray.alerts import AlertsConfig
from rsi_ray.errors import SweepError
from rsi_ray.heritage import Parent
from rsi_ray.hyperparameters import TrainingChoices
from rsi_ray.mirror import bring_back
from rsi_ray.objectives import SCORE
from rsi_ray.observer import Watch
from rsi_ray.own import given_task
from rsi_ray.placement import Gpus, Resources, Strategy, Workers
from rsi_ray.plan import Plan
from rsi_ray.planning import plan_of, problems_of, scheduler_maker
from rsi_ray.printable import one_line
from rsi_ray.records import Verdict
from rsi_ray.replay import Replay, replay
from rsi_ray.result import Result
from rsi_ray.runs import (
    find_trial,
    named_run,
    new_run,
    old_run,
)
from rsi_ray.states import CHECKPOINT_SECONDS
from rsi_ray.study import TOLD, trial_of
from rsi_ray.sweep import run_sweep
from rsi_ray.table_job import TableJob
from rsi_ray.tasks.task import Task
from rsi_ray.training import Training
from rsi_ray.training_job import TrainingJob
from safety import Document, Limits, limits_from_dict, limits_from_yaml, validate
from search_spaces.given_trial import spec_from
from search_spaces.measured import priced
from search_spaces.tabular import TabularSpace


@dataclass
class Sweep:
    """One governed search.

    Attributes:
        space: what is searched: a space of ours, a `TabularSpace`, or any object with `suggest`, `samples`
            and `build`, and `cost` where it has arithmetic.
        task: what candidates learn, or a function that gives it; None for a table.
        limits: the limits, as an object, a mapping, or the path of a YAML file.
        name: of the runs; each adds its time.
        lineage: line of champions that its improvement is judged in, together with every other sweep of that
            name on the ledger; None for one of its own.
        training: how candidates are trained.
        hyperparameters: those of the training that are searched.
        sampler: a name of `SAMPLERS`, `module:Class`, or a sampler of Optuna.
        scheduler: a name of `SCHEDULERS`, or a function that gives a scheduler of Ray Tune; None for asha,
            or fifo where there are several objectives.
        grace_period, reduction_factor, interval: of the schedulers by name.
        objectives: `score`, and what is to be small beside it: params, forward_flops, memory, latency.
        trials: candidates that are trained.
        concurrent: trials at a time; None for as many as fit.
        seconds: after so many the sweep ends; None for no end.
        trial_seconds: longest time of one trial.
        cpus, gpus: of one trial; with `auto` the share of a GPU that its own memory needs.
        gpu_memory: bytes of the smallest GPU; None for what the nodes' drivers tell.
        workers, strategy: processes that train one trial together, each with these cores and GPUs, see
            `placement.Resources`.
        baseline: parameters of a candidate that is trained first and alone, to compare with.
        warm_start: folder of an earlier run, or an Optuna study, whose candidates the sampler is told.
        keep_weights: best candidates whose weights are kept.
        checkpoint_bytes: what weights and checkpoints may take on disk; None for no quota.
        checkpoint_seconds: between two states of a candidate that another node may go on from; None for none.
        max_failures: candidates that failed in a row, after which the sweep ends.
        storage: folder of all runs.
        artifacts: URI of a store, as s3://bucket/prefix, that workers write checkpoints and weights into, and
            that a run's results are repeated in; None where all nodes share the storage.
        ledger: SQLAlchemy URL of the ledger; None for that of the cluster's governor, or one in the storage.
        governor_key: public key that the governor must prove; None for the one beside the ledger, or else the
            first that it shows.
        checkpoints: folders on the governor's host, of another disk or a mounted share, that the signed ends
            of the audit are written to as well, for good.
        alerts: who is told where its lineage is shut down: the keys of a file's `alerts`.
        seed: of sampler and candidates.
        parent: whose weights candidates begin with, as far as they fit; None for weights of their own.
    """

    space: Any
    task: Task | Callable[[], Task] | None
    limits: Limits | Mapping[str, Any] | str | Path
    _: KW_ONLY
    name: str = "sweep"
    lineage: str | None = None
    training: Training = field(default_factory=Training)
    hyperparameters: TrainingChoices = field(default_factory=TrainingChoices)
    sampler: str | optuna.samplers.BaseSampler = "tpe"
    scheduler: str | Callable[[], TrialScheduler] | None = None
    grace_period: int = 2
    reduction_factor: int = 3
    interval: int = 1
    objectives: Sequence[str] = (SCORE,)
    trials: int = 24
    concurrent: int | None = None
    seconds: int | None = None
    trial_seconds: int = 600
    cpus: int = 1
    gpus: Gpus = 0.0
    gpu_memory: int | None = None
    workers: Workers = 1
    strategy: Strategy = "auto"
    baseline: Mapping[str, Any] | None = None
    warm_start: str | Path | optuna.Study | None = None
    keep_weights: int = 3
    checkpoint_bytes: int | None = None
    checkpoint_seconds: int | None = CHECKPOINT_SECONDS
    max_failures: int = 3
    storage: str | Path = "rsi_results"
    artifacts: str | None = None
    ledger: str | None = None
    governor_key: str | None = None
    checkpoints: Sequence[str | Path] = ()
    alerts: AlertsConfig | Mapping[str, Any] = field(default_factory=AlertsConfig)
    seed: int = 0
    parent: Parent | None = None
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._enqueued: list[dict[str, Any]] = []
        self._told: list[FrozenTrial] = []

    def enqueue_trial(self, params: Mapping[str, Any]) -> None:
        """Train these parameters before the sampler is asked.

        Raises:
            ValueError: a parameter is missing, out of its range, or not asked for.
        """
        self._enqueued.append(dict(spec_from(self.job(), params)[1]))

    def add_trial(self, params: Mapping[str, Any], values: float | Sequence[float]) -> None:
        """Tell the sampler of a candidate that was measured elsewhere; it isn't trained again.

        Args:
            params: its parameters.
            values: its score, or one value for each objective.

        Raises:
            ValueError: a parameter is missing, out of its range, or not asked for; or a value is.
        """
        job = self.job()
        full = dict(spec_from(job, params)[1])
        given: Any = [values] if isinstance(values, Real) else values
        each = [float(value) for value in given]
        if len(each) != len(self.objectives):
            raise ValueError(f"values: expected one for each of {', '.join(self.objectives)}")
        record = {"verdict": Verdict.EARLIER, "config": full, "score": each[0], "from": TOLD}
        record["claim"] = job.price(full).as_dict()
        self._told.append(trial_of(job, full, TrialState.COMPLETE, each, record))

    def run(self, *, resume: str | Path | None = None, watch: Watch | None = None) -> Result:
        """Run it, or go on with a run of it that was stopped.

        Args:
            resume: name or folder of the run to go on with.
            watch: is shown the sweep a few times a second.

        Raises:
            SweepError: it can't run as asked for.
            SafetyError: the governor or its ledger is at fault; nothing runs on.
        """
        return run_sweep(self.plan(resume=resume), watch)

    def replay(self, trial: str) -> Replay:
        """Train a candidate of a run of this sweep again, and compare the score.

        Args:
            trial: RUN/NUMBER, or a NUMBER of the latest run.

        Raises:
            RunError: there is no such trial.
            SafetyError: the limits or the budgets don't admit it.
        """
        return replay(
            find_trial(Path(self.storage).expanduser(), trial),
            self.job(),
            self.checked_limits(),
            threads=self.cpus,
        )

    def job(self) -> Any:
        """What a candidate does.

        Raises:
            SweepError: a part of it is missing.
        """
        if isinstance(self.space, TabularSpace):
            return TableJob(space=self.space, trial_seconds=self.trial_seconds)
        if self.task is None:
            raise SweepError("task: missing; expected a Task, or a function that gives one")
        return TrainingJob(
            space=priced(self.space, self.training.batch_size),
            load_task=self.task if callable(self.task) else partial(given_task, self.task),
            training=self.training,
            choices=self.hyperparameters,
            seed=self.seed,
            trial_seconds=self.trial_seconds,
            resources=self.resources,
            latency="latency" in self.objectives,
            parent=self.parent,
        )

    @property
    def resources(self) -> Resources:
        """What each trial is given."""
        return Resources(
            cpus=self.cpus,
            gpus=self.gpus,
            gpu_memory=self.gpu_memory or 0,
            workers=self.workers,
            strategy=self.strategy,
        )

    def plan(self, *, resume: str | Path | None = None, now: time.struct_time | None = None) -> Plan:
        """Everything that it takes to run it, checked; a new run gets a folder of its own.

        Raises:
            SweepError: it can't run.
        """
        plan = self.checked_plan()
        if resume is not None:
            if plan.artifacts:
                bring_back(plan.artifacts, plan.folder.parent, Path(resume).name)
            return old_run(plan, resume)
        return new_run(plan, now or time.localtime())

    def plan_as(self, name: str, *, sweep: str) -> Plan:
        """The plan of a run of this very name, under a sweep that runs share; one that began goes on.

        Raises:
            SweepError: it can't run.
        """
        return named_run(self.checked_plan(), name, sweep)

    def checked_plan(self) -> Plan:
        """Everything but the folder of a run.

        Raises:
            SweepError: it can't run.
        """
        for problem in problems_of(self):
            raise SweepError(problem)
        try:
            plan = plan_of(self, enqueued=self._enqueued, told=self._told)
            plan.scheduler()  # what is wrong with it is told before anything starts
        except (ValueError, TypeError) as error:  # a part of it doesn't fit: one line says which
            raise SweepError(one_line(error)) from None
        return plan

    def checked_limits(self) -> Limits:
        """The limits, parsed.

        Raises:
            DocumentError: they don't fit, in one line.
        """
        if isinstance(self.limits, Limits):
            return self.limits
        if isinstance(self.limits, str | Path):
            return limits_from_yaml(Path(self.limits))
        return limits_from_dict(self.limits)

    def checked_alerts(self) -> AlertsConfig:
        """Who is told of a shutdown.

        Raises:
            DocumentError: it doesn't fit, in one line.
        """
        if isinstance(self.alerts, AlertsConfig):
            return self.alerts
        return validate(AlertsConfig, Document(source="alerts", data=self.alerts))

    def check_scheduler(self) -> None:
        """Make a scheduler once.

        Raises:
            ValueError: it is unknown, or has nothing to work on.
        """
        scheduler_maker(self, self.job(), self.training.epochs)()
