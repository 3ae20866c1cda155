"""One generation: wires Tuner, searcher, scheduler and stopper under a governor, and runs it."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from rsi_ray.job import Job
from rsi_ray.records import Verdict, best, frame
from rsi_ray.sampling import METRIC, RANDOM_DRAWS, OptunaSearcher, open_study, random_config
from rsi_ray.worker import Candidate
from safety import Allow, Claim, Hold, Limits, SafetyError, Status, Usage, judge_claim
from safety.actor import GovernorClient, connect
from safety.tune import Governance, GovernedScheduler, GovernedSearch, GovernedStopper, usage_of
from search_spaces.space import SearchSpace

RUN_FILE = "run.json"
FAILURES_IN_A_ROW = 3

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


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a sweep has found.

    Attributes:
        table: all candidates; see `records.frame`.
        best, baseline: their records, where there are any.
        improvement: the verdict on the best against the baseline.
        status: state of the sweep and its budgets at the end.
        ended: why it ended before its number of trials; "" where it didn't.
    """

    folder: Path
    table: pd.DataFrame
    best: dict[str, Any] | None
    baseline: dict[str, Any] | None
    improvement: Allow | Hold | Any
    status: Status
    ended: str


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A sweep while it runs, for whoever watches.

    Attributes:
        study: candidates that ended, and those that run.
        running: last result of each running trial, by its Tune id.
        live: Optuna number of each running trial, by its Tune id.
        status: state and budgets.
        trials: candidates that are to be trained.
        dashboard: address of the Ray dashboard.
        price: claim of a configuration.
    """

    study: optuna.Study
    running: dict[str, dict[str, Any]]
    live: dict[str, int]
    status: Status
    trials: int
    dashboard: str
    price: Callable[[Mapping[str, Any]], Claim]


Watch = Callable[[Snapshot], None]


class StopAsked:
    """Whether the sweep is to end: a signal came, or one candidate after the other fails."""

    def __init__(self) -> None:
        self.reason = ""

    def __call__(self) -> bool:
        """Tune and the searcher poll this."""
        return bool(self.reason)


def check_sweep(sweep: Sweep) -> None:
    """Refuse what could only spin: a space or a baseline over the ceilings.

    Raises:
        SweepError: one line that says which.
    """
    rng = random.Random(sweep.seed)
    claims = [sweep.job.price(random_config(sweep.space, rng)) for _ in range(RANDOM_DRAWS)]
    verdicts = [judge_claim(sweep.limits, claim) for claim in claims]
    if not any(isinstance(verdict, Allow) for verdict in verdicts):
        least = min(range(len(claims)), key=lambda i: claims[i].params)
        reason = getattr(verdicts[least], "reason", "")
        raise SweepError(
            f"space: none of {RANDOM_DRAWS} random specs is under every ceiling; of the smallest: {reason}"
        )
    if sweep.baseline is not None:
        verdict = judge_claim(sweep.limits, sweep.job.price(sweep.baseline))
        if not isinstance(verdict, Allow):
            raise SweepError(f"baseline: {verdict.reason}")


def run_sweep(sweep: Sweep, watch: Watch = lambda _: None) -> Result:
    """Run a sweep to its end, or to the first of signal, freeze and fault.

    Raises:
        SweepError: it can't run as asked for.
        SafetyError: the governor or its ledger is at fault; nothing runs on.
    """
    check_sweep(sweep)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    if (sweep.folder / RUN_FILE).exists():
        raise SweepError(f"folder {sweep.folder}: holds a run already")
    (sweep.folder / RUN_FILE).write_text(json.dumps(dict(sweep.about), indent=2))
    os.environ.update(TUNE_ENVIRONMENT)
    # Tune prints a traceback for each failed trial; it stays in the trial's error.txt, and we print one line
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with local_ray() as dashboard, _signals() as stop:
        governor = connect(sweep.ledger_url)
        governor.open_sweep(sweep.name, sweep.limits)
        study = open_study(sweep.folder / "study.log", sweep.name, sweep.sampler)
        searcher = _searcher(sweep, study)
        observer = Observer(sweep, searcher, governor, watch, stop, dashboard)
        try:
            _tuner(sweep, searcher, governor, observer, stop).fit()
        finally:
            # every worker is dead here: Tune has stopped, or killed, each of its actors
            governor.close_sweep(sweep.name, observer.usage())
            _prune_weights(sweep, study)
            _write(sweep, study)
        stop.reason = stop.reason or searcher.stopped_by
        return _result(sweep, study, governor, stop)


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


@contextmanager
def _signals() -> Iterator[StopAsked]:
    """Turn the first SIGINT or SIGTERM into an orderly end; the second one is Python's own."""
    stop = StopAsked()

    def ask(number: int, _frame: object) -> None:
        stop.reason = f"interrupted by {signal.Signals(number).name}"
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _searcher(sweep: Sweep, study: optuna.Study) -> OptunaSearcher:
    return OptunaSearcher(
        study,
        sweep.space,
        price=sweep.job.price,
        judge=lambda claim: judge_claim(sweep.limits, claim),
        reports=sweep.reports,
        baseline=sweep.baseline,
        seed=sweep.seed,
    )


def _tuner(
    sweep: Sweep, searcher: OptunaSearcher, governor: GovernorClient, observer: Observer, stop: StopAsked
) -> tune.Tuner:
    governance = Governance(authority=governor, sweep=sweep.name, price=sweep.job.price, stop_asked=stop)
    trainable = tune.with_parameters(
        Candidate,
        job=sweep.job,
        authority=governor,
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
            max_concurrent_trials=sweep.concurrent or _fitting(sweep),
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


class Observer(tune.Callback):
    """Sees Tune's trials: tells the watcher, and counts failures in a row."""

    seconds_between_looks = 0.5

    def __init__(
        self,
        sweep: Sweep,
        searcher: OptunaSearcher,
        governor: GovernorClient,
        watch: Watch,
        stop: StopAsked,
        dashboard: str,
    ) -> None:
        self._sweep, self._searcher, self._governor = sweep, searcher, governor
        self._watch, self._stop, self._dashboard = watch, stop, dashboard
        self._trials: Sequence[Trial] = ()
        self._looked = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; a watcher's terminal can't be."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look at the sweep, a few times a second."""
        del iteration, info
        self._trials = trials
        if self._searcher.failures_in_a_row >= FAILURES_IN_A_ROW and not self._stop.reason:
            self._stop.reason = f"{FAILURES_IN_A_ROW} candidates in a row failed"
        now = time.monotonic()
        if now - self._looked >= self.seconds_between_looks:
            self._looked = now
            self._watch(self._snapshot())

    def _snapshot(self) -> Snapshot:
        running = [trial for trial in self._trials if trial.status == Trial.RUNNING]
        return Snapshot(
            study=self._searcher.study,
            running={trial.trial_id: dict(trial.last_result or {}) for trial in running},
            live=self._searcher.live_numbers(),
            status=self._governor.status(self._sweep.name),
            trials=self._sweep.trials,
            dashboard=self._dashboard,
            price=self._sweep.job.price,
        )

    def usage(self) -> dict[str, Usage]:
        """Last known usage of each trial, by lease key."""
        told = {trial.trial_id: trial.last_result or {} for trial in self._trials}
        return {
            f"{self._sweep.name}/{trial_id}": usage_of(result)
            for trial_id, result in told.items()
            if "used_flops" in result
        }


def _prune_weights(sweep: Sweep, study: optuna.Study) -> None:
    """Keep the weights of the best candidates only."""
    table = frame(study)
    measured = table[table["verdict"] == Verdict.MEASURED]
    kept = set(measured.nlargest(sweep.keep_weights, "score")["trial_id"])
    for path in (sweep.folder / "weights").glob("*.safetensors"):
        if path.stem not in kept:
            path.unlink()


def _write(sweep: Sweep, study: optuna.Study) -> None:
    """Write results.parquet, whole or not at all."""
    partial = sweep.folder / "results.parquet.partial"
    frame(study).to_parquet(partial, index=False)
    partial.replace(sweep.folder / "results.parquet")


def _result(sweep: Sweep, study: optuna.Study, governor: GovernorClient, stop: StopAsked) -> Result:
    table = frame(study)
    found = best(study)
    baseline: Any = next(iter(table[table["baseline"]].to_dict("records")), None)
    improvement: Any = Allow()
    if found and baseline and found["number"] != baseline["number"]:
        with suppress(SafetyError):
            improvement = governor.judge_improvement(sweep.name, baseline["score"], found["score"])
    status = governor.status(sweep.name)
    ended = stop.reason or (f"frozen: {status.reason}" if status.state == "frozen" else "")
    return Result(
        folder=sweep.folder,
        table=table,
        best=found,
        baseline=baseline,
        improvement=improvement,
        status=status,
        ended=ended,
    )
