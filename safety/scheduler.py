"""Ray shell of gate 2: a scheduler that lets no trial run without a lease for what it is now."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from ray.tune import TuneError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from safety.errors import SafetyError
from safety.governance import REFUSED, Governance, lease_of, usage_of
from safety.lease import DIED, FAILED, LOST
from safety.search import ENDING_RULES, HOLD_SECONDS
from safety.trials import Stall, Starting, Without, as_it_is, changes_arrivals, failure_of, gpus_of
from safety.verdict import Allow, Deny, Hold, Verdict

logger = logging.getLogger(__name__)


class GovernedScheduler(TrialScheduler):
    """Gate 2: no trial runs but under a lease for its configuration and resources of that moment.

    However it reached Tune, a trial is held on arrival until it is admitted. One that is paused is settled
    and asked for again, as what the inner scheduler has made of it, before it goes on; so is one that
    failed and is tried again.

    Args:
        inner: the scheduler that decides.
        governance: governor, sweep and price.
    """

    # what comes after a report that is refused must not be computed yet
    _supports_buffered_results = False

    def __init__(self, inner: TrialScheduler, governance: Governance) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = inner
        self._governance = governance
        self._history()

    def _history(self) -> None:
        self._held: dict[str, Trial] = {}
        self._denied: list[Trial] = []
        # trials that the inner scheduler does not know
        self._strangers: set[str] = set()
        # what was admitted of each trial, as objects: Tune replaces them when it changes a trial
        self._admitted: dict[str, tuple[object, object]] = {}
        self._failed: dict[str, Verdict] = {}
        self._starting, self._stall = Starting(), Stall()
        # whether the inner scheduler's choice must wait
        self._waits = False

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the wiring, not the history: Tune adds restored trials again."""
        return {"_inner": self._inner, "_governance": self._governance}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin without a history."""
        self.__dict__.update(state)
        self._history()

    def is_holding(self) -> bool:
        """Whether a trial waits on its arrival."""
        return bool(self._held)

    @property
    def metric(self) -> str | None:
        """The inner scheduler's metric."""
        name: str | None = self._inner.metric
        return name

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Pass the metric on."""
        accepted: bool = self._inner.set_search_properties(metric, mode, **spec)
        return accepted

    # --- arrival

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Admit at once, or pause: Tune starts every pending trial in the same step, a paused one never."""
        self._governance.heard.controller = tune_controller
        changes = changes_arrivals(self._inner)
        failure = self._failed.pop(trial.trial_id, None)
        if changes or trial.status != Trial.PENDING:
            self._inner.on_trial_add(tune_controller, trial)
        if trial.status != Trial.PENDING:
            return
        verdict = failure if isinstance(failure, Deny) else self._ask(trial)
        if isinstance(verdict, Allow):
            if not changes:
                self._inner.on_trial_add(tune_controller, trial)
            return
        if failure:
            tune_controller._set_trial_status(trial, Trial.PAUSED)
        else:  # it is in none of the controller's sets yet
            trial.set_status(Trial.PAUSED)
        if not changes:
            self._strangers.add(trial.trial_id)
        if isinstance(verdict, Deny):
            self._note_denied(tune_controller, trial, verdict)
        else:
            self._held[trial.trial_id] = trial

    def _ask(self, trial: Trial) -> Verdict:
        verdict = self._governance.readmit(trial.trial_id, trial.config, gpus_of(trial))
        if isinstance(verdict, Allow):
            self._admitted[trial.trial_id] = as_it_is(trial)
        return verdict

    def _is_admitted(self, trial: Trial) -> bool:
        admitted, present = self._admitted.get(trial.trial_id), as_it_is(trial)
        return admitted is not None and all(a is b for a, b in zip(admitted, present, strict=True))

    def _note_denied(self, tune_controller: Any, trial: Trial, denial: Deny) -> None:
        if denial.rule != FAILED:  # which is told by itself
            logger.warning("%s is refused: %s", trial, denial.reason)
        self._denied.append(trial)
        if denial.rule in ENDING_RULES:
            self._governance.heard.used_up = denial.reason
            tune_controller.search_alg.set_finished()

    # --- the choice

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The oldest held trial if it is admitted now, else the inner scheduler's choice if that is."""
        self._stop_denied(tune_controller)
        chosen = self._admit_held(tune_controller)
        self._stop_denied(tune_controller)
        chosen = chosen or self._inner_choice(tune_controller)
        self._recheck_pending(tune_controller)
        self._end_stalled(tune_controller, chosen)
        return self._starting.spared(chosen, tune_controller.get_live_trials(), time.monotonic())

    def _admit_held(self, tune_controller: Any) -> Trial | None:
        while self._held:
            trial_id, trial = next(iter(self._held.items()))
            verdict = self._ask(trial)
            if not isinstance(verdict, Allow | Deny):
                time.sleep(HOLD_SECONDS)  # the controller would spin
                return None
            del self._held[trial_id]
            if isinstance(verdict, Allow):
                if trial_id in self._strangers:
                    self._strangers.discard(trial_id)
                    self._inner.on_trial_add(self._shown(tune_controller), trial)
                return trial
            self._note_denied(tune_controller, trial, verdict)
        return None

    def _shown(self, tune_controller: Any, *more: str) -> Any:
        return Without(tune_controller, {*self._strangers, *self._held, *more})

    def _inner_choice(self, tune_controller: Any) -> Trial | None:
        waiting: set[str] = set()
        self._waits = False
        while True:
            trial = self._inner.choose_trial_to_run(self._shown(tune_controller, *waiting))
            if trial is None or trial.trial_id in waiting or trial.trial_id in self._held:
                break
            verdict = Allow() if self._is_admitted(trial) else self._ask(trial)
            if isinstance(verdict, Allow):
                return trial
            waiting.add(trial.trial_id)
            self._waits = self._waits or isinstance(verdict, Hold)
            if isinstance(verdict, Deny):
                self._note_denied(tune_controller, trial, verdict)
                self._stop_denied(tune_controller)
        if waiting:
            time.sleep(HOLD_SECONDS)
        return None

    def _recheck_pending(self, tune_controller: Any) -> None:
        """Tune starts every pending trial, chosen or not; its resources may be others by now."""
        for trial in list(tune_controller.get_live_trials()):
            if trial.status != Trial.PENDING or self._is_admitted(trial):
                continue
            verdict = self._ask(trial)
            if isinstance(verdict, Allow):
                continue
            tune_controller._set_trial_status(trial, Trial.PAUSED)
            if isinstance(verdict, Deny):
                self._note_denied(tune_controller, trial, verdict)
            else:
                self._held[trial.trial_id] = trial

    def _stop_denied(self, tune_controller: Any) -> None:
        while self._denied:
            trial = self._denied.pop()
            # without a local path, building the ResultGrid fails
            trial.init_local_path()
            tune_controller.stop_trial(trial)

    def _end_stalled(self, tune_controller: Any, chosen: Trial | None) -> None:
        live = [trial for trial in tune_controller.get_live_trials() if not trial.is_finished()]
        goes_on = chosen or self._held or self._waits or not tune_controller.search_alg.is_finished()
        stalled = self._stall.first_of([] if goes_on else live, time.monotonic())
        if stalled:
            logger.warning("%s: stopped, its scheduler resumes it no more", stalled)
            tune_controller.stop_trial(stalled)

    # --- results and ends

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """The inner scheduler's decision; a trial that is paused by it is settled.

        Nothing is under way here: a class trainable computes in a step, a function waits in its report.
        """
        decision: str = self._inner.on_trial_result(self._shown(tune_controller), trial, result)
        if decision == TrialScheduler.PAUSE or trial.status == Trial.PAUSED:
            self._settle(trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Settle the lease.

        Raises:
            TuneError: its last report came under a lease that is over. Tune counts that as a failure of the
                trial, and so may try it again, as one whose worker died.
        """
        denial = self._governance.heard.denied.get(self._governance.key(trial.trial_id))
        if denial and denial.rule == LOST:
            del self._governance.heard.denied[self._governance.key(trial.trial_id)]
            raise TuneError(denial.reason)
        self._settle(trial, result)
        if REFUSED in result:  # it has no metric to be remembered by
            self._inner.on_trial_error(tune_controller, trial)
        else:
            self._inner.on_trial_complete(tune_controller, trial, result)

    def _settle(self, trial: Trial, result: Mapping[str, Any]) -> None:
        self._forget(trial)
        lease, key = lease_of(result), self._governance.key(trial.trial_id)
        if lease is None:
            self._governance.authority.void(key, "it ended before it began")
            return
        heard = self._governance.heard.usage
        try:
            heard[key] = usage_of(result)  # for the end of the sweep, should this fail
            self._governance.authority.settle(lease["id"], lease["fence"], heard[key])
        except (SafetyError, KeyError) as error:
            logger.warning("%s: not settled, its hold is spent in the end: %s", trial, error)
        else:
            del heard[key]

    def _forget(self, trial: Trial) -> None:
        self._governance.forget(trial.trial_id)
        self._admitted.pop(trial.trial_id, None)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Give back a lease that never began: its worker is refused if it asks now.

        One that began keeps its hold until its worker settles it or it is reaped: a dead actor is no proof
        that its process is.
        """
        self._forget(trial)
        key, reason = self._governance.key(trial.trial_id), failure_of(trial)
        self._governance.heard.denied.pop(key, None)  # it was of the attempt that has failed
        self._governance.authority.fail(self._governance.sweep, key, reason)
        self._failed[trial.trial_id] = self._may_go_on(key, reason)
        self._governance.authority.void(key, "its trial failed before it began")
        self._inner.on_trial_error(tune_controller, trial)

    def _may_go_on(self, key: str, reason: str) -> Verdict:
        """Whether Tune may try a trial again that has failed, which it does right after."""
        if self._governance.retries_failures:
            return Allow()
        verdict = self._governance.authority.verdict(key)
        by_itself = isinstance(verdict, Deny) and verdict.rule == FAILED and verdict.reason != DIED
        return Deny(FAILED, reason) if by_itself else Allow()

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Give back the lease of a trial that never began."""
        self._forget(trial)
        self._held.pop(trial.trial_id, None)
        if trial.trial_id not in self._strangers:
            self._inner.on_trial_remove(tune_controller, trial)
        self._governance.authority.void(self._governance.key(trial.trial_id), "removed before it began")

    def debug_string(self) -> str:
        """The inner scheduler's, and what is held."""
        return f"Governed, {len(self._held)} held; {self._inner.debug_string()}"

    def save(self, checkpoint_path: str) -> None:
        """Save the inner scheduler."""
        self._inner.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the inner scheduler."""
        self._inner.restore(checkpoint_path)
