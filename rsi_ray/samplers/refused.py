"""Refused trials for samplers that look at complete ones alone: complete, and bad."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rsi_ray.samplers.history import excess, is_refused

# Optuna's key of a constraint among a trial's system attributes
CONSTRAINT = "constraints:excess"


def as_complete(trial: FrozenTrial, values: Sequence[float]) -> FrozenTrial:
    """A copy that is complete with these values; its constraints stay."""
    told = copy.copy(trial)
    told.state = TrialState.COMPLETE
    told.values = list(values)
    return told


def refused_as_worst(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of a study of one objective; the refused ones complete, worse than any by their excess."""
    trials = study.get_trials(deepcopy=False)
    refused = {trial.number for trial in trials if is_refused(trial)}
    sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
    losses = [
        sign * trial.values[0]
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.number not in refused
    ]
    worst = max(losses, default=0.0)
    return [
        as_complete(trial, [sign * (worst + excess(trial))]) if trial.number in refused else trial
        for trial in trials
    ]


def with_measured_constraints(
    complete: Sequence[FrozenTrial], refused: Sequence[FrozenTrial]
) -> list[FrozenTrial]:
    """Complete and refused trials that all have one constraint, as a model of it needs them.

    How far a complete trial is under its ceilings is not told: it is taken as far as the median of the
    refused is over them. Refused ones have the median values, which say nothing of them.
    """
    if not refused or not complete:
        return list(complete)
    typical = statistics.median(excess(trial) for trial in refused)
    middle = [statistics.median(values) for values in zip(*(t.values for t in complete), strict=True)]
    over = [min(excess(trial), 3 * typical) for trial in refused]
    return [
        *(_constrained(trial, trial.values, -typical) for trial in complete),
        *(_constrained(trial, middle, value) for trial, value in zip(refused, over, strict=True)),
    ]


def _constrained(trial: FrozenTrial, values: Sequence[float], value: float) -> FrozenTrial:
    told = as_complete(trial, values)
    told.system_attrs = {CONSTRAINT: value}
    return told
