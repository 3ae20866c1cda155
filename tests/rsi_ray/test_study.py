"""What a study's records tell a later process: outcomes, what was interrupted, what an earlier run knew."""

import optuna
import pytest
from optuna.trial import TrialState

from rsi_ray.records import RECORD, Verdict, frame, pareto_front
from rsi_ray.study import (
    TOLD,
    config_of,
    earlier_trials,
    known_outcomes,
    open_study,
    proposals_in_a_row,
    scores_by_report,
    take_up,
    trained_count,
    trial_of,
)
from safety import request_digest
from tests.integration.jobs import WidthSpace

SPACE = WidthSpace()
TOLD_RECORD = {"verdict": Verdict.EARLIER, "config": {"width": 6}, "score": 0.6, "from": TOLD}
CLAIM = {"params": 9, "forward_flops": 18, "memory_bytes": 9}


@pytest.fixture
def study(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return open_study(tmp_path / "study.log", "tested", optuna.samplers.RandomSampler(seed=0))


def tell(study, width, verdict, value=None, **record):
    study.enqueue_trial({"width": width})
    trial = study.ask()
    SPACE.suggest(trial)
    told = {"verdict": verdict, "config": {"width": width}, "claim": CLAIM, "score": value, **record}
    trial.set_user_attr(RECORD, told)
    state = {Verdict.MEASURED: TrialState.COMPLETE, Verdict.FAILED: TrialState.FAIL}
    study.tell(trial, value, state.get(verdict, TrialState.PRUNED))


def digest(width):
    return request_digest({"width": width})


def test_what_was_measured_stopped_failed_or_over_a_ceiling_is_known(study):
    tell(study, 1, Verdict.MEASURED, 0.5)
    tell(study, 2, Verdict.STOPPED, scores={"1": 0.25})
    tell(study, 3, Verdict.FAILED)
    tell(study, 4, Verdict.REFUSED, rule="max_params", excess={"max_params": 0.5})
    known = known_outcomes(study)
    assert known.keys() == {digest(width) for width in (1, 2, 3, 4)}
    assert known[digest(1)].values == [0.5]
    assert known[digest(2)].scores == {1: 0.25}
    assert known[digest(4)].excess == {"max_params": 0.5}


@pytest.mark.parametrize("rule", ["budget.trials", "frozen", "killed", "closed", "unjudged"])
def test_a_refusal_that_passes_is_not_known(study, rule):
    tell(study, 1, Verdict.REFUSED, rule=rule)
    assert known_outcomes(study) == {}


def test_a_candidate_that_was_mutated_is_no_outcome_of_either_configuration(study):
    tell(study, 1, Verdict.MEASURED, 0.5, proposed={"width": 2})
    assert known_outcomes(study) == {}


def test_what_a_run_left_in_the_middle_is_given_back_under_its_number(study):
    tell(study, 1, Verdict.MEASURED, 0.5)
    for width in (1, 7, 7):
        study.enqueue_trial({"width": width})
        SPACE.suggest(study.ask())
    study.enqueue_trial({"width": 9})
    left = take_up(study, ("score",))
    assert [(trial.number, config_of(trial)["width"]) for trial in left] == [(1, 1), (2, 7), (3, 7), (4, 9)]


def test_only_what_was_trained_counts_as_trained(study):
    tell(study, 1, Verdict.MEASURED, 0.5)
    tell(study, 2, Verdict.STOPPED)
    tell(study, 3, Verdict.FAILED)
    tell(study, 4, Verdict.REFUSED)
    study.ask()
    assert trained_count(study) == 3


def test_an_earlier_runs_candidates_are_taken_where_the_space_offers_them(study, tmp_path):
    tell(study, 5, Verdict.MEASURED, 0.5)
    tell(study, 30, Verdict.MEASURED, 0.7)
    tell(study, 6, Verdict.STOPPED)
    (taken,) = earlier_trials(study, WidthSpace(widths=(1, 20)), ("score",))
    assert (taken.params, taken.values) == ({"width": 5}, [0.5])
    later = open_study(tmp_path / "later.log", "later", optuna.samplers.RandomSampler(seed=0))
    later.add_trial(taken)
    WidthSpace(widths=(1, 20)).suggest(later.ask())  # one name, one distribution
    row = frame(later).iloc[0]
    assert (row["verdict"], row["score"]) == (Verdict.EARLIER, 0.5)


def test_an_earlier_run_tells_every_objective_that_it_knows(study):
    tell(study, 5, Verdict.MEASURED, 0.5)
    (taken,) = earlier_trials(study, SPACE, ("score", "params"))
    assert taken.values == [0.5, 9.0]
    assert earlier_trials(study, SPACE, ("score", "latency")) == ()


def test_the_front_is_what_no_measured_candidate_dominates(tmp_path):
    study = open_study(
        tmp_path / "study.log", "t", optuna.samplers.RandomSampler(seed=0), ("score", "params")
    )
    for width, values in ((1, (0.5, 10.0)), (2, (0.6, 20.0)), (3, (0.4, 15.0)), (4, (0.6, 30.0))):
        study.enqueue_trial({"width": width})
        trial = study.ask()
        SPACE.suggest(trial)
        trial.set_user_attr(RECORD, {"verdict": Verdict.MEASURED, "config": {"width": width}})
        study.tell(trial, values)
    assert pareto_front(study) == {0, 1}
    assert list(frame(study)["pareto"]) == [True, True, False, False]
    assert study.metric_names == ["score", "params"]


def test_a_candidate_whose_process_died_between_record_and_tell_keeps_its_score(study):
    study.enqueue_trial({"width": 7})
    trial = study.ask()
    SPACE.suggest(trial)
    trial.set_user_attr(
        RECORD, {"verdict": Verdict.MEASURED, "config": {"width": 7}, "claim": CLAIM, "score": 0.9}
    )
    assert take_up(study, ("score",)) == []
    assert study.best_value == 0.9
    assert known_outcomes(study)[digest(7)].values == [0.9]


def test_a_refusal_whose_process_died_as_it_was_told_keeps_its_constraint(study):
    study.enqueue_trial({"width": 7})
    trial = study.ask()
    SPACE.suggest(trial)
    refused = {"verdict": Verdict.REFUSED, "config": {"width": 7}, "rule": "max_params"}
    trial.set_user_attr(RECORD, {**refused, "excess": {"max_params": 0.5}})
    assert take_up(study, ("score",)) == []
    (told,) = study.get_trials()
    assert (told.state, told.constraints) == (TrialState.PRUNED, {"max_params": 0.5})


def test_how_often_a_trial_was_proposed_in_vain_is_counted_back_to_the_trial_before(study):
    tell(study, 1, Verdict.REFUSED, trial_id="a")
    tell(study, 2, Verdict.STOPPED, trial_id="a")
    assert proposals_in_a_row(study) == 0
    tell(study, 3, Verdict.REFUSED, trial_id="b")
    for trial_id, count in (("c", 1), ("c", 2)):
        tell(study, 4, Verdict.REFUSED, trial_id=trial_id)
        assert proposals_in_a_row(study) == count
    tell(study, 4, Verdict.KNOWN)
    assert proposals_in_a_row(study) == 3


def test_what_reports_told_is_read_back_of_what_was_trained_alone(study):
    tell(study, 1, Verdict.MEASURED, 0.5, scores={"1": 0.25, "2": 0.5})
    tell(study, 2, Verdict.REFUSED, scores={})
    tell(study, 3, Verdict.STOPPED, scores={"1": 0.125})
    tell(study, 4, Verdict.MEASURED, 0.5, scores={"1": 0.5}, proposed={"width": 9})
    assert scores_by_report(study) == [{1: 0.25, 2: 0.5}, {1: 0.125}]


def test_a_study_that_is_not_ours_is_told_by_its_parameters_and_values(tmp_path):
    foreign = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for width in (5, 6):
        foreign.enqueue_trial({"width": width})
        trial = foreign.ask()
        SPACE.suggest(trial)
        foreign.tell(trial, width / 10)
    told = earlier_trials(foreign, SPACE, ("score",))
    assert [(one.params, one.values) for one in told] == [({"width": 5}, [0.5]), ({"width": 6}, [0.6])]
    assert earlier_trials(foreign, SPACE, ("score", "params")) == ()


def test_what_an_earlier_run_was_told_is_told_on_and_what_was_mutated_is_not(study):
    tell(study, 5, Verdict.MEASURED, 0.5, proposed={"width": 4})
    (told,) = (trial_of(SPACE, {"width": 6}, TrialState.COMPLETE, [0.6], record) for record in [TOLD_RECORD])
    study.add_trial(told)
    (taken,) = earlier_trials(study, SPACE, ("score",))
    assert taken.params == {"width": 6}


def test_what_people_told_of_is_known_and_not_run(study):
    study.add_trial(trial_of(SPACE, {"width": 6}, TrialState.COMPLETE, [0.6], TOLD_RECORD))
    assert known_outcomes(study)[digest(6)].values == [0.6]


def test_a_column_of_mixed_choices_is_text(study, tmp_path):
    for value in (3, "auto"):
        trial = study.ask()
        trial.suggest_categorical("mode", [3, "auto"])
        trial.set_user_attr(RECORD, {"verdict": Verdict.FAILED, "config": {"mode": value}})
        study.tell(trial, state=TrialState.FAIL)
    table = frame(study)
    table.to_parquet(tmp_path / "t.parquet")
    assert list(table["config/mode"]) == ["3", "auto"]
