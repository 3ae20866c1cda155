"""Metrics of a sweep: scores, and candidates by what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from rsi_ray.records import best, record_of
from rsi_ray.spec_text import MOST_CHARACTERS, spec_text
from safety.metrics import Metric, Sample
from safety.rules import is_finite_number

# trials in training that have a curve of their own
MOST_TRAINING = 100
_RUN = ("sweep", "run")
# beside those of the ledger; the run is a generation's, where a loop has several under one sweep
METRICS = {
    "rsi_trials": Metric(text="candidates of a run by what became of them", labels=(*_RUN, "state")),
    "rsi_score": Metric(text="score that was reported last in a run", labels=_RUN),
    "rsi_best_score": Metric(text="best score of a candidate that was trained to the end", labels=_RUN),
    "rsi_trial_reports": Metric(
        text="reports of a trial in training, and which process trains it",
        labels=(*_RUN, "trial", "spec", "worker"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A Tune trial as its driver sees it.

    Attributes:
        trial: its id.
        config: what it trains.
        result: its last one; {} where it told none.
        is_training: whether it runs now.
    """

    trial: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    is_training: bool

    @property
    def worker(self) -> str:
        """Its process, as its lease names it; "" before its first report."""
        return f"{self.result['pid']}@{self.result['node_ip']}" if "pid" in self.result else ""


def of_run(
    sweep: str,
    run: str,
    study: optuna.Study,
    live: Collection[int],
    seen: Collection[Seen],
) -> Iterator[Sample]:
    """How a run stands.

    Args:
        sweep: its name on the ledger.
        run: its own name.
        study: its candidates.
        live: numbers of those that are trained now.
        seen: Tune's trials.
    """
    labels = {"sweep": sweep, "run": run}
    states = Counter(_state(trial, live) for trial in study.get_trials(deepcopy=False))
    for state, count in states.items():
        yield Sample(name="rsi_trials", value=count, labels={**labels, "state": state})
    yield from _training(labels, seen)
    scored = [one.result for one in seen if is_finite_number(one.result.get("score"))]
    if scored:
        last = max(scored, key=lambda result: float(result.get("timestamp", 0)))
        yield Sample(name="rsi_score", value=float(last["score"]), labels=labels)
    champion = best(study)
    if champion:
        yield Sample(name="rsi_best_score", value=float(champion["score"]), labels=labels)


def _training(labels: Mapping[str, str], seen: Iterable[Seen]) -> Iterator[Sample]:
    for one in [one for one in seen if one.is_training][:MOST_TRAINING]:
        named = {"trial": one.trial, "spec": spec_text(one.config)[:MOST_CHARACTERS], "worker": one.worker}
        reports = one.result.get("training_iteration", 0)
        yield Sample(name="rsi_trial_reports", value=reports, labels={**labels, **named})


def _state(trial: FrozenTrial, live: Collection[int]) -> str:
    if trial.number in live:
        return "training"
    return str(record_of(trial)["verdict"]) if trial.state.is_finished() else "waiting"
