"""Ray shell of gate 1: a searcher whose proposals are asked for before they become trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator

from safety.errors import SearchExhausted
from safety.governance import Governance
from safety.lease import NOT_OPEN
from safety.rules import is_finite_number
from safety.stopper import PULSE_SECONDS
from safety.verdict import Allow, Deny, Hold, Verdict

HOLD_SECONDS = 0.05
# proposals in a row without room in a budget, after which it counts as used up
BUDGET_REFUSALS = 20
# rules that refuse whatever is proposed
ENDING_RULES = ("budget.trials", *NOT_OPEN)

Config = Mapping[str, Any]


def _as_proposed(config: Config) -> Config:
    return config


class GovernedSearch(Searcher):
    """Gate 1: asks the governor before a proposal becomes a trial.

    Refused proposals go back to the inner searcher, by `on_trial_refused(trial_id, denial)` where it has
    one, and it proposes again. A proposal that must wait is kept and asked for again.

    Args:
        inner: the searcher that proposes.
        governance: governor, sweep and price.
        max_refusals: refusals in a row after which the search ends with SearchExhausted.
        complete: the configuration that a trial will have, from the part that is proposed.
    """

    def __init__(
        self,
        inner: Searcher,
        governance: Governance,
        *,
        max_refusals: int = 200,
        complete: Callable[[Config], Config] = _as_proposed,
    ) -> None:
        super().__init__(metric=inner.metric, mode=inner.mode)
        self._inner = inner
        self._governance = governance
        self._complete = complete
        self._max_refusals = max_refusals
        self._refusals = self._without_room = 0
        self._waiting: tuple[str, dict[str, Any]] | None = None
        self._pulsed = -PULSE_SECONDS
        # Tune names a trial anew each time it asks; the inner searcher knows the name it proposed under
        self._proposed_as: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the wiring, not the history."""
        fresh: dict[str, Any] = {"_refusals": 0, "_without_room": 0, "_waiting": None, "_proposed_as": {}}
        return {**self.__dict__, **fresh, "_pulsed": -PULSE_SECONDS}

    @property
    def searcher(self) -> Searcher:
        """The inner searcher; Tune looks for a limit of concurrency there."""
        return self._inner

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
        proposer = trial_id
        while not self._governance.stop_asked():
            proposer, config = self._waiting or (proposer, self._inner.suggest(proposer))
            if not isinstance(config, dict):
                return config
            verdict = self._governance.admit(trial_id, self._complete(config))
            self._waiting = (proposer, config) if isinstance(verdict, Hold) else None
            if isinstance(verdict, Allow):
                self._refusals = self._without_room = 0
                self._proposed_as[trial_id] = proposer
                return config
            if isinstance(verdict, Hold):
                return None if self._waits_on() else Searcher.FINISHED
            self._tell_refused(proposer, verdict)
            if self._is_over(verdict):
                break
            proposer = self._next_proposer(trial_id)
        return Searcher.FINISHED

    def _waits_on(self) -> bool:
        """Wait a little; whether the sweep is still open. Where nothing runs, Tune asks nobody else."""
        time.sleep(HOLD_SECONDS)
        now = time.monotonic()
        if now - self._pulsed < PULSE_SECONDS:
            return True
        self._pulsed = now
        return self._governance.authority.pulse(self._governance.sweep) == "open"

    def _next_proposer(self, trial_id: str) -> str:
        # asked again under a name that it knows, a searcher that hears of no refusal repeats itself
        return trial_id if hasattr(self._inner, "on_trial_refused") else f"{trial_id}.{self._refusals}"

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
        self._governance.forget(trial_id)
        return self._governance.heard.denied.pop(self._governance.key(trial_id), Allow())

    def _verdict(self, trial_id: str) -> Verdict:
        return self._governance.authority.verdict(self._governance.key(trial_id))

    def on_pause(self, trial_id: str) -> None:
        """Pass a pause on; HyperBand for BOHB tells of it."""
        inner: Any = self._inner
        inner.on_pause(self._proposed_as.get(trial_id, trial_id))

    def on_unpause(self, trial_id: str) -> None:
        """Pass the end of a pause on."""
        inner: Any = self._inner
        inner.on_unpause(self._proposed_as.get(trial_id, trial_id))

    def get_state(self) -> dict[str, Any]:
        """Nothing: the inner searcher is saved by itself."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to set."""

    def save(self, checkpoint_path: str) -> None:
        """Save the inner searcher."""
        self._inner.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the inner searcher."""
        self._inner.restore(checkpoint_path)


class PatientVariants(BasicVariantGenerator):
    """Tune's own grid and random search; makes no trial while the last one waits for the governor.

    Otherwise all of a grid would be held, and an endless one would never end.

    Args:
        waits: whether a trial is held.
        max_concurrent: of Tune's configuration; 0 for no limit.
    """

    def __init__(self, waits: Callable[[], bool], max_concurrent: int = 0) -> None:
        super().__init__(max_concurrent=max_concurrent)
        self._waits = waits

    def next_trial(self) -> Any:
        """The next trial, or None."""
        return None if self._waits() else super().next_trial()  # type: ignore[no-untyped-call]

    def get_state(self) -> Any:
        """The search's state alone."""
        state = super().get_state()  # type: ignore[no-untyped-call]
        return state and {name: value for name, value in state.items() if name != "_waits"}
