"""The study of a sweep: an Optuna study in a journal file, and what its records tell a later process."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from rsi_ray.journal import StudyStorage
from rsi_ray.objectives import SCORE, directions_of, values_of
from rsi_ray.records import RECORD, Verdict, record_of
from safety import request_digest
from safety.lease import LOST, NOT_OPEN
from search_spaces.given_trial import GivenTrial
from search_spaces.space import Suggests

# where a candidate comes from that people told of
TOLD = "add_trial"
# refusals that say nothing of the candidate for good
PASSING_RULES = ("budget.", *NOT_OPEN, LOST, "unjudged")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a candidate ended: enough to answer the same configuration again.

    Attributes:
        number: of the Optuna trial that was run.
        state: what the study is told.
        values: of the objectives, where it is complete.
        scores: score by report.
        excess: violated constraints, above 0.
    """

    number: int
    state: TrialState
    values: list[float] | None
    scores: Mapping[int, float]
    excess: Mapping[str, float]


def open_study(
    path: Path,
    name: str,
    sampler: optuna.samplers.BaseSampler,
    objectives: Sequence[str] = (SCORE,),
) -> optuna.Study:
    """Open a study in a journal file, which optuna-dashboard opens as it is."""
    study = optuna.create_study(
        storage=StudyStorage(path),
        study_name=name,
        sampler=sampler,
        directions=directions_of(objectives),
        load_if_exists=True,
    )
    if len(objectives) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))
    return study


def read_study(path: Path, name: str) -> optuna.Study:
    """Open a study that is in a journal file already."""
    return optuna.load_study(study_name=name, storage=StudyStorage(path))


def known_outcomes(study: optuna.Study) -> dict[str, Outcome]:
    """Outcome of every configuration that need not be run again, by its digest."""
    known = {}
    for trial in study.get_trials(deepcopy=False):
        record = record_of(trial)
        if trial.state.is_finished() and _is_final(record):
            known[request_digest(record["config"])] = Outcome(
                number=trial.number,
                state=trial.state,
                values=trial.values,
                scores={int(step): score for step, score in record.get("scores", {}).items()},
                excess=record.get("excess", {}),
            )
    return known


def _is_final(record: Mapping[str, Any]) -> bool:
    if record.get("from") == TOLD:
        return True
    if "proposed" in record:  # mutated while it was trained: neither configuration has this score
        return False
    if record["verdict"] == Verdict.REFUSED:
        return not str(record.get("rule", "")).startswith(PASSING_RULES)
    return record["verdict"] in (Verdict.MEASURED, Verdict.STOPPED, Verdict.FAILED)


def take_up(study: optuna.Study, objectives: Sequence[str]) -> list[dict[str, Any]]:
    """End the trials that a run left behind; configurations of those that are to be run again.

    One whose record was written is told what the record says; any other one as interrupted.
    """
    interrupted = []
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING, TrialState.WAITING]):
        state, values = _recorded(trial, objectives)
        if state == TrialState.FAIL:
            interrupted.append(dict(trial.system_attrs.get("fixed_params", trial.params)))
        # not `tell`: it takes no trial that was enqueued and never asked for
        study._storage.set_trial_state_values(trial._trial_id, state, values)
    known = known_outcomes(study)
    # the twins of one candidate were interrupted with it
    once = {request_digest(config): config for config in interrupted if config}
    return [config for digest, config in once.items() if digest not in known]


def _recorded(trial: FrozenTrial, objectives: Sequence[str]) -> tuple[TrialState, list[float] | None]:
    """How a trial ended whose record was written just before its process died."""
    record = trial.user_attrs.get(RECORD, {})
    if record.get("verdict") == Verdict.MEASURED:
        return TrialState.COMPLETE, values_of(objectives, record)
    if record.get("verdict") in (Verdict.STOPPED, Verdict.REFUSED, Verdict.MUTATED):
        return TrialState.PRUNED, None
    return TrialState.FAIL, None


def trained_count(study: optuna.Study) -> int:
    """Candidates that were trained, whatever came of it."""
    trained = (Verdict.MEASURED, Verdict.STOPPED, Verdict.FAILED)
    return sum(record_of(trial)["verdict"] in trained for trial in study.get_trials(deepcopy=False))


def earlier_trials(
    study: optuna.Study, space: Suggests[Any], objectives: Sequence[str]
) -> tuple[FrozenTrial, ...]:
    """The measured trials of an earlier study that are candidates of this space, as this study takes them."""
    found = []
    for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        record = trial.user_attrs.get(RECORD) or _foreign_record(trial)
        mutated = "proposed" in record  # neither of its configurations has this score
        if mutated or record["verdict"] not in (Verdict.MEASURED, Verdict.EARLIER):
            continue
        values = _values_for(objectives, trial, record)
        if values is not None and fits(space, record["config"]):
            told = {"from": study.study_name, **record, "verdict": Verdict.EARLIER}
            found.append(trial_of(space, record["config"], TrialState.COMPLETE, values, told))
    return tuple(found)


def _foreign_record(trial: FrozenTrial) -> dict[str, Any]:
    """What an Optuna study that isn't ours tells of a trial."""
    return {"verdict": Verdict.MEASURED, "config": dict(trial.params), "score": trial.values[0]}


def _values_for(
    objectives: Sequence[str], trial: FrozenTrial, record: Mapping[str, Any]
) -> list[float] | None:
    if "claim" not in record:  # told, or of a study that isn't ours
        return list(trial.values) if len(trial.values) == len(objectives) else None
    try:
        return values_of(objectives, record)
    except KeyError:  # it was not asked for then
        return None


def trial_of(
    space: Suggests[Any],
    config: Mapping[str, Any],
    state: TrialState,
    values: Sequence[float] | None,
    record: Mapping[str, Any],
) -> FrozenTrial:
    """A trial that ended elsewhere, with the distributions that the space has for its parameters."""
    asked = FixedTrial(dict(config))
    space.suggest(asked)
    return optuna.trial.create_trial(
        state=state,
        params=dict(config),
        distributions=asked.distributions,
        values=values,
        user_attrs={RECORD: dict(record)},
    )


def fits(space: Suggests[Any], config: Mapping[str, Any]) -> bool:
    """Whether a configuration is one of this space, with nothing missing and nothing besides."""
    trial = GivenTrial(config)
    try:
        space.suggest(trial)
    except ValueError:
        return False
    return not trial.unused()
