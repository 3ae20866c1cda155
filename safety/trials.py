"""Ray shell: what gate 2 reads of Tune's trials, and what it shows of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, PopulationBasedTrainingReplay, TrialScheduler

from safety.lease import DIED

# a worker that did not start within so long may never
START_SECONDS = 60.0
# with paused trials alone and none chosen for so long, nobody will resume them
STALL_SECONDS = 5.0
# Tune heads each failure of a trial so, in the one file that it has for all of them
_FAILURE = "Failure # "
# what Ray says where a worker or its node is gone, or can't be reached, and what a trial of several
# processes raises where one of them is
_GONE = re.compile(
    r"ActorDiedError|[Aa]ctor died|The actor .* is unavailable|NodeDiedError|node is dead|WorkerLost"
)


def failure_of(trial: Trial) -> str:
    """Why a trial failed last, in one line, from the errors that Tune wrote down."""
    path = Path(trial.error_file) if trial.error_file else None
    text = path.read_text() if path and path.exists() else ""
    lines = text.rpartition(_FAILURE)[2].strip().splitlines()
    if not lines:
        return "it failed without a word"
    if any(_GONE.search(line) for line in lines):
        return DIED
    return lines[-1].strip()


def gpus_of(trial: Trial) -> float:
    """GPUs that a trial has now."""
    factory = trial.placement_group_factory
    return float(factory.required_resources.get("GPU", 0)) if factory else 0.0


class Without:
    """A controller that shows an inner scheduler all but some trials."""

    def __init__(self, controller: Any, hidden: Set[str]) -> None:
        self._controller = controller
        self._hidden = hidden

    def get_trials(self) -> list[Trial]:
        """Trials that are shown."""
        return [trial for trial in self._controller.get_trials() if trial.trial_id not in self._hidden]

    def get_live_trials(self) -> set[Trial]:
        """Trials that are shown and not over."""
        return {trial for trial in self._controller.get_live_trials() if trial.trial_id not in self._hidden}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)


class Starting:
    """Trials for which Tune is starting a worker, as far as can be told: those that waited when it chose."""

    def __init__(self) -> None:
        # since when, by their ids
        self._known: dict[str, float] = {}

    def spared(self, chosen: Trial | None, live: Iterable[Trial], now: float) -> Trial | None:
        """One that has just come, instead of the chosen one where a worker is being started for that.

        Tune gives the chosen trial a worker that is free, and stops the one that was being started for it:
        where trials are shorter than such a start takes, workers were started for ever, and never worked.

        Args:
            chosen: by the scheduler.
            live: trials that are not over.
            now: seconds, monotonic.
        """
        waiting = {trial.trial_id: trial for trial in live if trial.status == Trial.PENDING}
        come = sorted(waiting.keys() - self._known.keys())
        if chosen is not None:
            since = self._known.get(chosen.trial_id, -math.inf)
            # one whose worker doesn't come, since no node has room for it, takes what is free in the end
            if come and chosen.trial_id in waiting and now - since < START_SECONDS:
                chosen = waiting[come[0]]
            waiting[chosen.trial_id] = chosen
        self._known = {name: self._known.get(name, now) for name in waiting}
        return chosen


class Stall:
    """Paused trials that wait for one that was refused: HyperBand halves a bracket of which all reported."""

    def __init__(self) -> None:
        self._since: float | None = None

    def first_of(self, live: Sequence[Trial], now: float) -> Trial | None:
        """One of these that nobody will resume any more; None as long as somebody may.

        Args:
            live: trials that are not over; none where something goes on.
            now: seconds, monotonic.
        """
        if not live or any(trial.status != Trial.PAUSED for trial in live):
            self._since = None
            return None
        self._since = now if self._since is None else self._since
        if now - self._since < STALL_SECONDS:
            return None
        self._since = None
        return live[0]


def changes_arrivals(inner: TrialScheduler) -> bool:
    """Whether a scheduler completes the configuration of a trial that is added: it must come first."""
    base = getattr(inner, "_base_scheduler", inner)
    return isinstance(base, PopulationBasedTraining | PopulationBasedTrainingReplay)


def as_it_is(trial: Trial) -> tuple[object, object]:
    """What is admitted of a trial, as objects: Tune replaces them when it changes a trial."""
    return trial.config, trial.placement_group_factory
