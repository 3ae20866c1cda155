"""Watches a sweep while it runs: what people see of it, and why it should end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from ray import tune
from ray.tune.experiment import Trial

from rsi_ray.disk import STATES, TUNE, WEIGHTS, bytes_of_checkpoints, kept_trials, prune_states, prune_weights
from rsi_ray.metrics import METRICS, Seen, of_run
from rsi_ray.sampling import OptunaSearcher
from rsi_ray.stored_weights import Taken
from safety import Claim, GovernorUnreachable, Status, Usage, request_digest
from safety.actor import GovernorClient
from safety.errors import LedgerUnavailable
from safety.exporter import Exporter
from safety.metrics import Sample
from safety.tune import usage_of

if TYPE_CHECKING:
    from rsi_ray.plan import Plan


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
    """Whether the sweep is to end.

    Attributes:
        reason: why it ends before it should: a signal came, candidates fail, the disk's quota is full.
        used_up: why it ends as it was asked to: its time is over.
    """

    def __init__(self) -> None:
        self.reason = self.used_up = ""
        self._seconds: int | None = None
        self._deadline = 0.0

    def after(self, seconds: int | None) -> None:
        """End in so many seconds from now; None for never."""
        self._seconds = seconds
        self._deadline = time.monotonic() + (seconds or 0)

    def __call__(self) -> bool:
        """Tune and the searcher poll this."""
        if self._seconds is not None and not self.used_up and time.monotonic() >= self._deadline:
            self.used_up = f"the time of {self._seconds} s is over"
        return bool(self.reason or self.used_up)


@contextmanager
def signals_as_stop() -> Iterator[StopAsked]:
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


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Between sweeps, SIGTERM ends the loop as Ctrl-C does; a sweep makes an orderly end of both."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not in the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Observer(tune.Callback):
    """Sees Tune's trials, tells of them, and ends a sweep that fails, takes too long or too much disk."""

    seconds_between_looks = 0.5
    seconds_between_sizes = 2.0
    seconds_between_prunings = 30.0

    def __init__(
        self,
        plan: Plan,
        searcher: OptunaSearcher,
        governor: GovernorClient,
        watch: Watch | None,
        stop: StopAsked,
        dashboard: str,
    ) -> None:
        self._plan, self._searcher, self._governor = plan, searcher, governor
        self._watch, self._stop, self._dashboard = watch, stop, dashboard
        self._trials: Sequence[Trial] = ()
        self._looked = self._sized = 0.0
        self._pruned = time.monotonic()
        self._pruning: threading.Thread | None = None
        self._exporter = Exporter(METRICS, self._samples)
        stored = plan.stored
        places = (WEIGHTS, TUNE, STATES)
        self._taken = Taken(*map(stored.at, places)) if stored else None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; a watcher's terminal can't be."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look at the sweep, a few times a second."""
        del iteration, info
        self._trials = trials
        self._exporter.tell()
        now = time.monotonic()
        self._prune_states(now)
        if not self._stop():
            self._stop.reason = self._fault(now)
        if self._watch and now - self._looked >= self.seconds_between_looks:
            self._looked = now
            with suppress(GovernorUnreachable, LedgerUnavailable):  # there is nothing to be seen
                self._watch(self._snapshot())

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Leave the metrics as the sweep has ended."""
        del info
        self._trials = trials
        self._exporter.tell_now()

    def _samples(self) -> Iterator[Sample]:
        return of_run(
            self._plan.on_ledger,
            self._plan.name,
            self._searcher.study,
            self._searcher.live_numbers().values(),
            [_seen(trial) for trial in self._trials],
        )

    def _fault(self, now: float) -> str:
        if self._searcher.failures_in_a_row >= self._plan.max_failures:
            return f"{self._plan.max_failures} candidates in a row failed"
        if self._plan.checkpoint_bytes is None or now - self._sized < self.seconds_between_sizes:
            return ""
        self._sized = now
        taken = self._bytes_taken()
        if taken > self._plan.checkpoint_bytes:
            return f"checkpoints take {taken:,} bytes on disk, more than checkpoint_bytes allows"
        return ""

    def _prune_states(self, now: float) -> None:
        """Delete, in a thread, the states of candidates that have ended."""
        idle = self._pruning is None or not self._pruning.is_alive()
        if (
            self._plan.checkpoint_seconds is None
            or now - self._pruned < self.seconds_between_prunings
            or not idle
        ):
            return
        self._pruned = now
        told = (self._plan, self._searcher.study, self._live_digests())
        self._pruning = threading.Thread(target=prune_states, args=told, name="states", daemon=True)
        self._pruning.start()

    def _bytes_taken(self) -> int:
        study, live = self._searcher.study, self._searcher.live_numbers()
        if self._taken:
            return self._taken.prune({*kept_trials(self._plan, study), *live})
        prune_weights(self._plan, study, live)
        prune_states(self._plan, study, self._live_digests())
        return bytes_of_checkpoints(self._plan.folder)

    def _live_digests(self) -> set[str]:
        return {request_digest(trial.config) for trial in self._trials if not trial.is_finished()}

    def _snapshot(self) -> Snapshot:
        running = [trial for trial in self._trials if trial.status == Trial.RUNNING]
        return Snapshot(
            study=self._searcher.study,
            running={trial.trial_id: dict(trial.last_result or {}) for trial in running},
            live=self._searcher.live_numbers(),
            status=self._governor.status(self._plan.on_ledger),
            trials=self._plan.trials,
            dashboard=self._dashboard,
            price=self._plan.job.price,
        )

    def usage(self) -> dict[str, Usage]:
        """Last known usage of each trial, by lease key."""
        told = {trial.trial_id: trial.last_result or {} for trial in self._trials}
        return {
            f"{self._plan.on_ledger}/{trial_id}": usage_of(result)
            for trial_id, result in told.items()
            if "lease" in result
        }


def _seen(trial: Trial) -> Seen:
    return Seen(
        trial=trial.trial_id,
        config=trial.config or {},
        result=trial.last_result or {},
        is_training=trial.status == Trial.RUNNING,
    )
