"""Watches a sweep while it runs: what people see of it, and why it should end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from ray import tune
from ray.tune.experiment import Trial

from rsi_ray.sampling import OptunaSearcher
from safety import Claim, Status, Usage
from safety.actor import GovernorClient
from safety.tune import usage_of

if TYPE_CHECKING:
    from rsi_ray.sweep import Sweep

FAILURES_IN_A_ROW = 3


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


class Observer(tune.Callback):
    """Sees Tune's trials: tells the watcher, and counts failures in a row."""

    seconds_between_looks = 0.5

    def __init__(
        self,
        sweep: Sweep,
        searcher: OptunaSearcher,
        governor: GovernorClient,
        watch: Watch | None,
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
        if self._watch and now - self._looked >= self.seconds_between_looks:
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
