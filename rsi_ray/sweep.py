"""One generation: wires Tuner, searcher, scheduler and stopper under a governor, and runs it."""

from __future__ import annotations

import json
import logging
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune import TuneError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from rsi_ray.job import Job
from rsi_ray.observer import Observer, Watch, signals_as_stop
from rsi_ray.result import Result, prune_weights, result_of, write_table
from rsi_ray.sampling import METRIC, RANDOM_DRAWS, OptunaSearcher, open_study, random_config
from rsi_ray.worker import Candidate
from safety import Allow, Deny, Limits, SafetyError, Verdict, judge_claim
from safety.actor import connect
from safety.tune import Governance, GovernedScheduler, GovernedSearch, GovernedStopper
from search_spaces.space import SearchSpace

RUN_FILE = "run.json"
STUDY_FILE = "study.log"

# read by Tune in the driver's process
TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # the judge of reports answers a missing metric
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # a worker that is stuck in a step is killed after so many seconds when the sweep ends
    "TUNE_FORCE_TRIAL_CLEANUP_S": "2",
}


class SweepError(Exception):
    """A sweep can't run as it is asked for; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is to be run.

    Attributes:
        name: unique on its ledger.
        folder: of everything that the sweep leaves.
        ledger_url: of the ledger that binds it.
        limits: its limits.
        space: what is searched.
        job: what a candidate does.
        sampler: proposes.
        reports: of a full training.
        trials: candidates that are trained.
        baseline: full configuration that is trained first and alone; None for none.
        early_stopping: grace period and reduction factor of ASHA; None trains all to the end.
        concurrent: trials at a time; None for as many as fit.
        cpus, gpus: of one trial.
        keep_weights: best candidates whose weights are kept.
        seed: of the draws that are not the sampler's.
        about: what is written to run.json, for replays.
    """

    name: str
    folder: Path
    ledger_url: str
    limits: Limits
    space: SearchSpace[Any]
    job: Job
    sampler: optuna.samplers.BaseSampler
    reports: int
    trials: int
    baseline: dict[str, Any] | None = None
    early_stopping: tuple[int, int] | None = (1, 3)
    concurrent: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    keep_weights: int = 3
    seed: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


def check_sweep(sweep: Sweep) -> None:
    """Refuse what could only spin: a space or a baseline over the ceilings.

    Raises:
        SweepError: one line that says which.
    """
    rng = random.Random(sweep.seed)
    verdicts = [judge_config(sweep, random_config(sweep.space, rng)) for _ in range(RANDOM_DRAWS)]
    denials = [verdict for verdict in verdicts if isinstance(verdict, Deny)]
    if len(denials) == RANDOM_DRAWS:
        nearest = min(denials, key=lambda denial: sum(denial.excess.values()) if denial.excess else math.inf)
        raise SweepError(
            f"space: none of {RANDOM_DRAWS} random specs is under every ceiling; nearest: {nearest.reason}"
        )
    if sweep.baseline is not None:
        verdict = judge_config(sweep, sweep.baseline)
        if not isinstance(verdict, Allow):
            raise SweepError(f"baseline: {verdict.reason}")


def judge_config(sweep: Sweep, config: Mapping[str, Any]) -> Verdict:
    """A configuration against the ceilings alone; one that can't be priced is denied."""
    try:
        claim = sweep.job.price(config)
    except Exception as error:
        return Deny("price", f"it can't be priced: {type(error).__name__}: {error}")
    return judge_claim(sweep.limits, claim)


def run_sweep(sweep: Sweep, watch: Watch | None = None) -> Result:
    """Run a sweep to its end, or to the first of signal, freeze and fault.

    Raises:
        SweepError: it can't run as asked for.
        SafetyError: the governor or its ledger is at fault; nothing runs on.
    """
    check_sweep(sweep)
    os.environ.update(TUNE_ENVIRONMENT)
    # Tune prints a traceback for each failed trial; it stays in the trial's error.txt, and we print one line
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with _nothing_half_written(sweep), local_ray() as dashboard, signals_as_stop() as stop:
        governor = connect(sweep.ledger_url)
        governance = Governance(authority=governor, sweep=sweep.name, price=sweep.job.price, stop_asked=stop)
        concurrent = sweep.concurrent or _fitting(sweep)
        governor.open_sweep(sweep.name, sweep.limits)
        study = _open_folder(sweep)
        searcher = _searcher(sweep, study)
        observer = Observer(sweep, searcher, governor, watch, stop, dashboard)
        tuner = _tuner(sweep, searcher, governance, observer, concurrent)
        try:
            _fit(tuner, lambda: governor.close_sweep(sweep.name, observer.usage()))
        finally:
            write_table(sweep, study)
            prune_weights(sweep, study)
        return result_of(
            sweep,
            study,
            governor,
            stopped=stop.reason or searcher.stopped_by,
            used_up=governance.heard.used_up or searcher.used_up,
            dashboard=dashboard,
        )


@contextmanager
def _nothing_half_written(sweep: Sweep) -> Iterator[None]:
    """Leave no empty folder of a sweep that never began."""
    try:
        yield
    finally:
        with suppress(OSError):  # it holds something
            sweep.folder.rmdir()


def _open_folder(sweep: Sweep) -> optuna.Study:
    sweep.folder.mkdir(parents=True, exist_ok=True)
    if (sweep.folder / RUN_FILE).exists():
        raise SweepError(f"folder {sweep.folder}: holds a run already")
    (sweep.folder / RUN_FILE).write_text(json.dumps(dict(sweep.about), indent=2))
    return open_study(sweep.folder / STUDY_FILE, sweep.name, sweep.sampler)


def _fit(tuner: tune.Tuner, settle: Callable[[], None]) -> None:
    """Run to the end, then settle: Tune has stopped, or killed, each of its actors by then.

    Not so after a second Ctrl-C: the leases are left to be reaped.
    """
    try:
        tuner.fit()
    except TuneError as error:
        settle()
        raise SafetyError(f"Tune gave up: {str(error).strip().splitlines()[-1]}") from error
    except Exception:
        settle()
        raise
    settle()


@contextmanager
def local_ray() -> Iterator[str]:
    """A Ray of this process's own, unless one is up already; gives its dashboard's address."""
    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(address="local", log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield str(ray._private.worker.get_dashboard_url() or "")
    finally:
        if ours:
            ray.shutdown()


def _searcher(sweep: Sweep, study: optuna.Study) -> OptunaSearcher:
    return OptunaSearcher(
        study,
        sweep.space,
        price=sweep.job.price,
        judge=lambda config: judge_config(sweep, config),
        reports=sweep.reports,
        baseline=sweep.baseline,
        seed=sweep.seed,
    )


def _tuner(
    sweep: Sweep, searcher: OptunaSearcher, governance: Governance, observer: Observer, concurrent: int
) -> tune.Tuner:
    trainable = tune.with_parameters(
        Candidate,
        job=sweep.job,
        authority=governance.authority,
        sweep=sweep.name,
        weights=sweep.folder / "weights",
        threads=sweep.cpus,
    )
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": sweep.cpus, "gpu": sweep.gpus}),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=GovernedSearch(searcher, governance),
            scheduler=GovernedScheduler(_scheduler(sweep), governance),
            num_samples=sweep.trials,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(sweep.folder.resolve()),
            stop=GovernedStopper(governance, METRIC),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[observer],
            verbose=0,
        ),
    )


def _scheduler(sweep: Sweep) -> TrialScheduler:
    if sweep.early_stopping is None:
        return FIFOScheduler()
    grace_period, reduction_factor = sweep.early_stopping
    return ASHAScheduler(
        max_t=sweep.reports,
        grace_period=min(grace_period, sweep.reports),
        reduction_factor=reduction_factor,
    )


def _fitting(sweep: Sweep) -> int:
    total = ray.cluster_resources()
    fits = total.get("CPU", 1) // sweep.cpus
    if sweep.gpus:
        fits = min(fits, total.get("GPU", 0) // sweep.gpus)
    if fits < 1:
        asked = f"{sweep.cpus} CPUs and {sweep.gpus} GPUs"
        raise SweepError(f"resources: a trial asks for {asked}, more than this cluster has")
    return int(fits)
