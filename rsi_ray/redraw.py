"""Brings a new sampler to where an earlier process had it: it draws every proposal of a study again."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from rsi_ray.records import RECORD, Verdict
from rsi_ray.study import FIXED
from search_spaces.space import Suggests

# of drawing again, after which a run goes on with what the sampler has by then
MOST_SECONDS = 120.0


def redraw(
    study: optuna.Study,
    space: Suggests[Any],
    *,
    most_seconds: float = MOST_SECONDS,
    seconds: Callable[[], float] = time.monotonic,
) -> str:
    """Have a study's new sampler draw what was drawn, each time from what was known then.

    So its generators, and whatever it learns on the way, are as in a process that never ended. With several
    trials at a time, an end is told where its time says.

    Args:
        study: of an earlier process; its sampler has drawn nothing yet.
        space: that was searched.
        most_seconds: that it may take.
        seconds: a clock that only rises.

    Returns:
        How what it draws from now on differs from what it would have drawn; "" where it doesn't.
    """
    again = optuna.create_study(sampler=study.sampler, directions=study.directions)
    until = seconds() + most_seconds
    open_ones: dict[int, tuple[FrozenTrial, optuna.Trial]] = {}
    for known in study.get_trials(deepcopy=False):
        if seconds() > until:
            return f"after {most_seconds:g} s only {known.number} proposals were drawn again"
        _tell_until(again, open_ones, known.datetime_start)
        if _was_told(known):
            again.add_trial(known)
            continue
        trial = _asked(again, space, known)
        if known.params and trial.params != known.params:
            return f"proposal {known.number} was {known.params}, and is {trial.params} now"
        open_ones[known.number] = known, trial
    _tell_until(again, open_ones, None)
    return ""


def _asked(study: optuna.Study, space: Suggests[Any], known: FrozenTrial) -> optuna.Trial:
    if FIXED in known.system_attrs:
        study.enqueue_trial(known.system_attrs[FIXED])
    trial = study.ask()
    if known.params:  # else its process died before it had drawn any
        space.suggest(trial)
    return trial


def _was_told(trial: FrozenTrial) -> bool:
    """Whether it was added as it is, and never asked for."""
    record = trial.user_attrs.get(RECORD, {})
    return "proposed" in record or record.get("verdict") == Verdict.EARLIER


def _tell_until(
    study: optuna.Study, open_ones: dict[int, tuple[FrozenTrial, optuna.Trial]], at: datetime | None
) -> None:
    """Tell the ends up to a time, in their order; all of them for None."""
    ended = [pair for pair in open_ones.values() if pair[0].datetime_complete]
    ended.sort(key=lambda pair: (pair[0].datetime_complete, pair[0].number))
    for known, trial in ended:
        if at is None or (known.datetime_complete and known.datetime_complete <= at):
            del open_ones[known.number]
            _tell(study, known, trial)


def _tell(study: optuna.Study, known: FrozenTrial, trial: optuna.Trial) -> None:
    for step, value in known.intermediate_values.items():
        trial.report(value, step)
    for name, value in known.user_attrs.items():
        trial.set_user_attr(name, value)
    for name, value in known.system_attrs.items():
        study._storage.set_trial_system_attr(trial._trial_id, name, value)
    values = known.values if known.state == TrialState.COMPLETE else None
    study.tell(trial, values, known.state)
