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
# where Optuna keeps the configuration of a trial that was enqueued
FIXED = "fixed_params"
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


def unended_digests(study: optuna.Study) -> set[str]:
    """Digests of the configurations that are in the middle, or are to be run again."""
    ended = known_outcomes(study).keys()
    trials = study.get_trials(deepcopy=False)
    running = (trial for trial in trials if not trial.state.is_finished())
    cut = (trial for trial in trials if trial.user_attrs.get(RECORD, {}).get("verdict") == Verdict.CUT)
    return {request_digest(config_of(trial)) for trial in (*running, *cut)} - ended


def _is_final(record: Mapping[str, Any]) -> bool:
    if record.get("from") == TOLD:
        return True
    if "proposed" in record:  # mutated while it was trained: neither configuration has this score
        return False
    if record["verdict"] == Verdict.REFUSED:
        return not str(record.get("rule", "")).startswith(PASSING_RULES)
    return record["verdict"] in (Verdict.MEASURED, Verdict.STOPPED, Verdict.FAILED)


def take_up(study: optuna.Study, objectives: Sequence[str]) -> list[FrozenTrial]:
    """The trials that a run left in the middle, which are run again under their numbers.

    One whose record was written is told what the record says, and ends.
    """
    interrupted = []
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING, TrialState.WAITING]):
        ended = _recorded(trial, objectives)
        if ended is not None:
            for name, over in trial.user_attrs[RECORD].get("excess", {}).items():
                if name not in trial.constraints:
                    optuna.Trial(study, trial._trial_id).set_constraint(name, over)
            study._storage.set_trial_state_values(trial._trial_id, *ended)
            continue
        if trial.state == TrialState.WAITING:  # it is for whoever runs it again, not for the next ask
            study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        interrupted.append(trial)
    return interrupted


def _recorded(trial: FrozenTrial, objectives: Sequence[str]) -> tuple[TrialState, list[float] | None] | None:
    """How a trial ended whose record was written just before its process died; None where none was.

    One that is known as another one, which is told with it, is answered from that one again.
    """
    record = trial.user_attrs.get(RECORD, {})
    if record.get("verdict", Verdict.KNOWN) == Verdict.KNOWN:
        return None
    if record["verdict"] == Verdict.MEASURED:
        return TrialState.COMPLETE, values_of(objectives, record)
    if record["verdict"] in (Verdict.STOPPED, Verdict.REFUSED, Verdict.MUTATED):
        return TrialState.PRUNED, None
    return TrialState.FAIL, None


def config_of(trial: FrozenTrial) -> dict[str, Any]:
    """The configuration of a trial, which may wait still; nothing where its process died as it drew it."""
    return dict(trial.system_attrs.get(FIXED, trial.params))


def proposals_in_a_row(study: optuna.Study) -> int:
    """How many of the latest proposals that have ended, all for one trial of Tune, came to no training."""
    count, proposer = 0, None
    for trial in reversed(study.get_trials(deepcopy=False)):
        if not trial.state.is_finished():
            continue
        record = trial.user_attrs.get(RECORD, {})
        known = record.get("verdict") == Verdict.KNOWN
        if not known and record.get("verdict") != Verdict.REFUSED:
            break
        proposer = proposer or record.get("trial_id")
        if not known and record.get("trial_id") != proposer:
            break
        count += 1
    return count


def scores_by_report(study: optuna.Study) -> list[dict[int, float]]:
    """The reports of every candidate that was trained and has ended, in the order of their proposal."""
    records = [record_of(trial) for trial in study.get_trials(deepcopy=False) if was_trained(trial)]
    return [
        {int(step): score for step, score in record.get("scores", {}).items()}
        for record in records
        if "proposed" not in record
    ]


def trained_count(study: optuna.Study) -> int:
    """Candidates that were trained, whatever came of it."""
    return sum(map(was_trained, study.get_trials(deepcopy=False)))


def was_trained(trial: FrozenTrial) -> bool:
    """Whether a candidate was trained, whatever came of it."""
    return record_of(trial)["verdict"] in (Verdict.MEASURED, Verdict.STOPPED, Verdict.FAILED)


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
