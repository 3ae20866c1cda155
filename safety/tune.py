"""Ray shell: gates 1 and 2 and the judge of reports, as Tune plugins.

A plugin that Tune restores comes back as it was pickled; so none holds a limit or a history of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from safety.errors import SafetyError, SearchExhausted
from safety.governance import Governance, Price, report_of, usage_of
from safety.rules import is_finite_number
from safety.verdict import Allow, Deny, Hold, Verdict

__all__ = [
    "Governance",
    "GovernedScheduler",
    "GovernedSearch",
    "GovernedStopper",
    "Price",
    "report_of",
    "usage_of",
]

PULSE_SECONDS = 1.0
HOLD_SECONDS = 0.05
# proposals in a row without room in a budget, after which it counts as used up
BUDGET_REFUSALS = 20
# rules that refuse whatever is proposed
ENDING_RULES = ("budget.trials", "frozen", "closed")

logger = logging.getLogger(__name__)


class GovernedSearch(Searcher):
    """Gate 1: asks the governor before a proposal becomes a trial.

    Refused proposals go back to the inner searcher, by `on_trial_refused(trial_id, denial)` where it has
    one, and it proposes again. A proposal that must wait is kept and asked for again.

    Args:
        inner: the searcher that proposes.
        governance: governor, sweep and price.
        max_refusals: refusals in a row after which the search ends with SearchExhausted.
    """

    def __init__(self, inner: Searcher, governance: Governance, *, max_refusals: int = 200) -> None:
        super().__init__(metric=inner.metric, mode=inner.mode)
        self._inner = inner
        self._governance = governance
        self._max_refusals = max_refusals
        self._refusals = self._without_room = 0
        self._waiting: tuple[str, dict[str, Any]] | None = None
        # Tune names a trial anew each time it asks; the inner searcher knows the name it proposed under
        self._proposed_as: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the wiring, not the history."""
        fresh: dict[str, Any] = {"_refusals": 0, "_without_room": 0, "_waiting": None, "_proposed_as": {}}
        return {**self.__dict__, **fresh}

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Pass the metric on."""
        accepted: bool = self._inner.set_search_properties(metric, mode, config, **spec)
        self._metric, self._mode = self._inner.metric, self._inner.mode
        return accepted

    def suggest(self, trial_id: str) -> Any:
        """The next proposal that the governor admits; None while none can be.

        Raises:
            SearchExhausted: too many refusals in a row.
        """
        while not self._governance.stop_asked():
            proposer, config = self._waiting or (trial_id, self._inner.suggest(trial_id))
            if not isinstance(config, dict):
                return config
            verdict = self._governance.admit(trial_id, config)
            self._waiting = (proposer, config) if isinstance(verdict, Hold) else None
            if isinstance(verdict, Allow):
                self._refusals = self._without_room = 0
                self._proposed_as[trial_id] = proposer
                return config
            if isinstance(verdict, Hold):
                time.sleep(HOLD_SECONDS)
                return None
            self._tell_refused(proposer, verdict)
            if self._is_over(verdict):
                break
        return Searcher.FINISHED

    def _tell_refused(self, trial_id: str, denial: Deny) -> None:
        if hasattr(self._inner, "on_trial_refused"):
            self._inner.on_trial_refused(trial_id, denial)
        else:
            self._inner.on_trial_complete(trial_id, error=True)

    def _is_over(self, denial: Deny) -> bool:
        self._refusals += 1
        self._without_room = self._without_room + 1 if denial.rule.startswith("budget.") else 0
        if denial.rule in ENDING_RULES or self._without_room >= BUDGET_REFUSALS:
            self._governance.heard.used_up = denial.reason
            return True
        if self._refusals >= self._max_refusals:
            raise SearchExhausted(
                f"{self._refusals} proposals in a row were refused, the last one because {denial.reason}"
            )
        return False

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a result on."""
        self._inner.on_trial_result(self._proposed_as.get(trial_id, trial_id), result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass the end on: a denied trial as a refusal, one without a finite metric as an error."""
        inner_id = self._proposed_as.pop(trial_id, trial_id)
        measured = result is not None and is_finite_number(result.get(str(self._metric)))
        verdict = self._verdict(trial_id) if error or not measured else self._heard(trial_id)
        if isinstance(verdict, Deny):
            self._tell_refused(inner_id, verdict)
            return
        self._inner.on_trial_complete(inner_id, result if measured else None, error or not measured)

    def _heard(self, trial_id: str) -> Verdict:
        key = self._governance.key(trial_id)
        self._governance.heard.admitted.pop(key, None)
        return self._governance.heard.denied.pop(key, Allow())

    def _verdict(self, trial_id: str) -> Verdict:
        return self._governance.authority.verdict(self._governance.key(trial_id))

    def save(self, checkpoint_path: str) -> None:
        """Save the inner searcher."""
        self._inner.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the inner searcher."""
        self._inner.restore(checkpoint_path)


def failure_of(trial: Trial) -> str:
    """Why a trial failed, in one line, from the error that Tune wrote down."""
    path = Path(trial.error_file) if trial.error_file else None
    lines = path.read_text().strip().splitlines() if path and path.exists() else []
    if not lines:
        return "it failed without a word"
    if any("ActorDiedError" in line or "actor died" in line for line in lines):
        return "its worker died: past its time limit or lease, out of memory, or killed"
    return lines[-1].strip()


class _WithoutHeld:
    """A controller that shows an inner scheduler no trial that is held."""

    def __init__(self, controller: Any, held: Mapping[str, Trial]) -> None:
        self._controller = controller
        self._held = held

    def get_trials(self) -> list[Trial]:
        """Trials that are not held."""
        return [trial for trial in self._controller.get_trials() if trial.trial_id not in self._held]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)


class GovernedScheduler(TrialScheduler):
    """Gate 2: holds every trial on arrival until the governor admits it, however it reached Tune.

    Args:
        inner: the scheduler that decides on early stopping.
        governance: governor, sweep and price.
    """

    def __init__(self, inner: TrialScheduler, governance: Governance) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = inner
        self._governance = governance
        self._held: dict[str, Trial] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the wiring, not the history: Tune adds restored trials again."""
        return {**self.__dict__, "_held": {}}

    @property
    def metric(self) -> str | None:
        """The inner scheduler's metric."""
        name: str | None = self._inner.metric
        return name

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Pass the metric on."""
        accepted: bool = self._inner.set_search_properties(metric, mode, **spec)
        return accepted

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Admit at once, or pause: Tune starts every pending trial in the same step, a paused one never."""
        if isinstance(self._governance.admit(trial.trial_id, trial.config), Allow):
            self._inner.on_trial_add(tune_controller, trial)
            return
        trial.set_status(Trial.PAUSED)
        self._held[trial.trial_id] = trial

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """A held trial that is admitted now, else the inner scheduler's choice."""
        for trial_id, trial in list(self._held.items()):
            verdict = self._governance.admit(trial_id, trial.config)
            if isinstance(verdict, Allow):
                del self._held[trial_id]
                self._inner.on_trial_add(tune_controller, trial)
                return trial
            if isinstance(verdict, Deny):
                self._stop_held(tune_controller, trial)
        if self._held:
            time.sleep(HOLD_SECONDS)  # the controller would spin
        shown: Any = _WithoutHeld(tune_controller, self._held)
        return self._inner.choose_trial_to_run(shown)

    def _stop_held(self, tune_controller: Any, trial: Trial) -> None:
        # without a local path, building the ResultGrid fails
        trial.init_local_path()
        tune_controller.stop_trial(trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """The inner scheduler's decision."""
        decision: str = self._inner.on_trial_result(tune_controller, trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Settle the lease: a class trainable computes only in a step, and none is under way here."""
        if "lease_id" in result:
            self._settle(result)
        else:
            self._governance.authority.void(self._governance.key(trial.trial_id), "it ended before it began")
        self._inner.on_trial_complete(tune_controller, trial, result)

    def _settle(self, result: Mapping[str, Any]) -> None:
        try:
            fence = result["lease_fence"]
            self._governance.authority.settle(result["lease_id"], fence, usage_of(result))
        except (SafetyError, KeyError) as error:
            logger.warning("not settled, its hold is spent in the end: %s", error)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Give back a lease that never began: its worker is refused if it asks now.

        One that began keeps its hold until it is reaped: a dead actor is no proof that its process is.
        """
        key = self._governance.key(trial.trial_id)
        self._governance.authority.fail(self._governance.sweep, key, failure_of(trial))
        self._governance.authority.void(key, "its trial failed before it began")
        self._inner.on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Give back the lease of a trial that never began."""
        if self._held.pop(trial.trial_id, None) is None:
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


class GovernedStopper(Stopper):
    """Judges every report, and ends the sweep when it is frozen or somebody asks for it.

    Args:
        governance: governor, sweep and price.
        metric: the metric that is optimized.
    """

    def __init__(self, governance: Governance, metric: str) -> None:
        self._governance = governance
        self._metric = metric
        self._pulsed = -PULSE_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the wiring, not the history: the clock of the last pulse may be another host's."""
        return {**self.__dict__, "_pulsed": -PULSE_SECONDS}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop this trial."""
        key = self._governance.key(trial_id)
        try:
            verdict = self._governance.authority.report(key, report_of(result, self._metric))
        except Exception as error:  # whatever it is: what can't be judged doesn't go on
            logger.error("%s: stopped, its report could not be judged: %s", key, error)
            verdict = Deny("unjudged", f"its report could not be judged: {error}")
        if isinstance(verdict, Allow):
            return False
        # a hold stops it as well: nobody can decide on it while it trains
        denial = verdict if isinstance(verdict, Deny) else Deny(verdict.rule, verdict.reason)
        self._governance.heard.denied[key] = denial
        return True

    def stop_all(self) -> bool:
        """Whether to stop the sweep; asks the governor at most once a second."""
        if self._governance.stop_asked():
            return True
        now = time.monotonic()
        if now - self._pulsed < PULSE_SECONDS:
            return False
        self._pulsed = now
        return self._governance.authority.pulse(self._governance.sweep) != "open"
