"""One generation: wires Tuner, searcher, scheduler and stopper under a governor, and runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from pyarrow.fs import PyFileSystem
from ray import tune
from ray.tune import TuneError
from ray.tune.schedulers import TrialScheduler

from rsi_ray.autoscaling import most_of_cluster
from rsi_ray.connection import local_ray
from rsi_ray.disk import (
    STATES,
    TUNE,
    WEIGHTS,
    kept_trials,
    nothing_empty,
    open_folder,
    prune_states,
    prune_weights,
)
from rsi_ray.errors import SweepError
from rsi_ray.examination import smallest_gpu
from rsi_ray.log_tail import log_tail
from rsi_ray.mirror import mirrored, of_sweep
from rsi_ray.observer import Observer, Watch, signals_as_stop
from rsi_ray.plan import Plan, check_plan, judge_config
from rsi_ray.redraw import redraw
from rsi_ray.result import Result, result_of, write_table
from rsi_ray.sampling import METRIC, OptunaSearcher
from rsi_ray.schedulers import recall
from rsi_ray.stored_weights import settle_weights
from rsi_ray.study import scores_by_report, trained_count
from rsi_ray.sweep_emergency import require_running, shut_down_if_frozen
from rsi_ray.trial_resources import TrialResources, fitting, placed, placement_of
from rsi_ray.tune_storage import CheckpointStorage
from rsi_ray.worker import Candidate
from safety import Governor, SafetyError, looser_fields
from safety.actor import GovernorClient, connect, connect_to_any
from safety.environment import environment
from safety.errors import CheckpointError
from safety.patience import Patient
from safety.tune import Governance, GovernedScheduler, GovernedSearch, GovernedStopper
from safety.watch import watched

log = logging.getLogger(__name__)

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


# that a trial is begun again: one fault of a host may cost it several workers, until Ray knows of the fault
MOST_TIMES_LOST = 10


def run_sweep(plan: Plan, watch: Watch | None = None) -> Result:
    """Run a sweep to its end, or to the first of signal, freeze and fault.

    A plan that is resumed goes on with the study that lies in its folder.

    Raises:
        SweepError: it can't run as asked for.
        SafetyError: the governor or its ledger is at fault; nothing runs on.
    """
    check_plan(plan)
    with (
        nothing_empty(plan.folder), quiet_tune(), local_ray() as dashboard, signals_as_stop() as stop,
        log_tail() as tail,
    ):  # fmt: skip
        plan = placed(plan, smallest_gpu)
        # a loop has looked when it began: an hour later, workers wait for a store that fails
        if plan.artifacts and not plan.sweep:
            plan.artifacts.check()
        governor = governor_of(plan)
        plan = replace(plan, ledger_url=governor.ledger_url(), governor_key=governor.public)
        require_running(plan, governor, tail.lines)
        patient = Patient(governor, stop)
        governance = Governance(
            authority=patient,
            sweep=plan.on_ledger,
            price=plan.job.price,
            stop_asked=stop,
            retries_failures=False,
        )
        concurrent = plan.concurrent or fitting(plan, most_of_cluster())
        stop.after(plan.seconds)
        # a generation of the loop is in the mirror of its run
        patterns = () if plan.sweep else of_sweep(plan.name)
        with (
            open_folder(plan) as (study, interrupted),
            mirrored(plan.artifacts if patterns else None, plan.folder.parent, patterns),
        ):
            plan = bound(plan, governor)
            if plan.resumed:
                _draw_again(plan, study)
            searcher = _searcher(plan, study, interrupted, lambda: _ask_for_one_more(governance))
            observer = Observer(plan, searcher, governor, watch, stop, dashboard)
            trials = plan.trials - trained_count(study)
            try:
                if trials > 0:
                    tuner = _tuner(plan, study, searcher, governor, governance, observer, trials, concurrent)
                    with watched(governance):
                        _fit(tuner, lambda: governor.close_sweep(plan.on_ledger, observer.usage()))
            finally:
                _leave(plan, study)
        result = result_of(
            plan,
            study,
            governor,
            stopped=stop.reason or searcher.stopped_by,
            used_up=stop.used_up or governance.heard.used_up or searcher.used_up,
            dashboard=dashboard,
        )
        shut_down_if_frozen(plan, governor, result, tail.lines)
        return result


def _leave(plan: Plan, study: optuna.Study) -> None:
    """Write the table, and keep of the files what somebody needs."""
    write_table(plan, study)
    prune_weights(plan, study)
    if plan.stored:
        settle_weights(plan.stored.at(WEIGHTS), plan.folder / WEIGHTS, kept_trials(plan, study))
    prune_states(plan, study)


def governor_of(plan: Plan) -> GovernorClient:
    """The governor that binds a plan; it is started where there is none.

    Raises:
        SweepError: a folder of checkpoints can't be written.
        SafetyError: it can't be reached, or isn't the one that is expected.
    """
    reach = connect if plan.ledger_named else connect_to_any
    state, key = plan.folder.parent, plan.governor_key
    try:
        return reach(plan.ledger_url, state=state, key=key, checkpoints=plan.checkpoints)
    except CheckpointError as error:
        raise SweepError(str(error)) from None


def bound(plan: Plan, governor: Governor | GovernorClient) -> Plan:
    """Open the sweep; the plan under the limits in force, where they are tighter than its own.

    Raises:
        SweepError: what was possible under its own is not under them.
    """
    in_force = governor.open_sweep(plan.on_ledger, plan.limits, plan.lineage)
    looser = looser_fields(in_force, plan.limits)
    if not looser:
        return plan
    log.warning("sweep %s: the ledger's limits are tighter and hold: %s", plan.on_ledger, ", ".join(looser))
    plan = replace(plan, limits=in_force)
    try:
        check_plan(plan)
    except SweepError:
        governor.close_sweep(plan.on_ledger, {})
        raise
    return plan


@contextmanager
def quiet_tune() -> Iterator[None]:
    """Tune prints a traceback for each failed trial; it stays in the trial's error.txt, we print one line."""
    tune_log = logging.getLogger("ray.tune")
    level = tune_log.level
    tune_log.setLevel(logging.CRITICAL)
    try:
        with environment(TUNE_ENVIRONMENT):
            yield
    finally:
        tune_log.setLevel(level)


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


def _ask_for_one_more(governance: Governance) -> None:
    """Have Tune make a trial more than it was told to."""
    governance.heard.controller.search_alg._total_samples += 1


def _draw_again(plan: Plan, study: optuna.Study) -> None:
    """Bring the sampler to where it was when the run was stopped."""
    otherwise = redraw(study, plan.space)
    if otherwise:
        log.warning(
            "run %s: its sampler goes on otherwise than if it had not stopped: %s", plan.name, otherwise
        )


def _scheduler(plan: Plan, study: optuna.Study) -> TrialScheduler:
    scheduler = plan.scheduler()
    recall(scheduler, scores_by_report(study))
    return scheduler


def _searcher(
    plan: Plan, study: optuna.Study, interrupted: list[FrozenTrial], one_more: Callable[[], None]
) -> OptunaSearcher:
    return OptunaSearcher(
        study,
        plan.space,
        price=plan.job.price,
        judge=lambda config: judge_config(plan.limits, plan.job, config),
        reports=plan.reports,
        objectives=plan.objectives,
        baseline=plan.baseline,
        enqueued=plan.enqueued,
        interrupted=interrupted,
        seed=plan.seed,
        one_more=one_more,
    )


def _tuner(
    plan: Plan,
    study: optuna.Study,
    searcher: OptunaSearcher,
    governor: GovernorClient,
    governance: Governance,
    observer: Observer,
    trials: int,
    concurrent: int | None,
) -> tune.Tuner:
    trainable = tune.with_parameters(
        Candidate,
        job=plan.job,
        authority=governor,
        sweep=plan.on_ledger,
        weights=plan.kept_in(WEIGHTS),
        states=plan.kept_in(STATES),
        state_seconds=plan.checkpoint_seconds,
        threads=plan.resources.cpus,
        run=plan.name if plan.sweep else "",
    )
    return tune.Tuner(
        tune.with_resources(trainable, TrialResources(partial(placement_of, plan))),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=GovernedSearch(searcher, governance),
            scheduler=GovernedScheduler(_scheduler(plan, study), governance),
            num_samples=trials,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=TUNE,
            **_storage(plan),
            stop=GovernedStopper(governance, METRIC),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=MOST_TIMES_LOST),
            callbacks=[observer],
            verbose=0,
        ),
    )


def _storage(plan: Plan) -> dict[str, Any]:
    """Where Tune keeps the checkpoints of trials."""
    if plan.stored is None:
        return {"storage_path": str(plan.folder.resolve())}
    files = PyFileSystem(CheckpointStorage(plan.stored, plan.folder.resolve()))
    return {"storage_path": plan.stored.opened()[1], "storage_filesystem": files}
