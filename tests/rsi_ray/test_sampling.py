"""The searcher on a real study in a file: what is told, what is asked again, what is drawn elsewhere."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from rsi_ray.records import RECORD, Verdict, best, frame
from rsi_ray.samplers import SAMPLERS
from rsi_ray.sampling import MOST_LOST, PATIENCE, OptunaSearcher
from rsi_ray.study import known_outcomes, open_study, trained_count
from safety import Allow, Claim, Deny, SearchExhausted, request_digest
from tests.integration.jobs import BehavingJob, WidthSpace

CEILING = 400


def judge(claim: Claim):
    over = claim.params / CEILING - 1
    return Deny("max_params", f"{claim.params} is over", {"max_params": over}) if over > 0 else Allow()


@pytest.fixture
def study(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return open_study(tmp_path / "study.log", "tested", SAMPLERS["tpe"](0))


def searcher_on(study, *, widths=(1, 40), baseline=None, seed=0, **more):
    job = BehavingJob(space=WidthSpace(widths=widths))
    return OptunaSearcher(
        study,
        job.space,
        price=job.price,
        judge=lambda config: judge(job.price(config)),
        reports=3,
        baseline=baseline,
        seed=seed,
        **more,
    )


def result(score, step=3):
    return {
        "score": score,
        "training_iteration": step,
        "domains/danger": 0.1,
        "lease/train_flops": 10,
        "lease/wall_ms": 1500,
    }


def only(study):
    (trial,) = study.get_trials()
    return trial


def test_a_candidate_trained_to_the_end_is_complete_with_its_score(study):
    searcher = searcher_on(study)
    searcher.suggest("a")
    searcher.on_trial_result("a", result(0.2, step=1))
    searcher.on_trial_complete("a", result(0.5))
    assert (only(study).state, only(study).value) == (TrialState.COMPLETE, 0.5)
    assert only(study).user_attrs[RECORD]["domains"] == {"danger": 0.1}


def test_a_candidate_stopped_early_is_pruned_with_its_intermediate_values(study):
    searcher = searcher_on(study)
    searcher.suggest("a")
    searcher.on_trial_result("a", result(0.2, step=1))
    searcher.on_trial_complete("a", result(0.3, step=2))
    assert only(study).state == TrialState.PRUNED
    assert only(study).intermediate_values == {1: 0.2, 2: 0.3}


def test_a_refused_candidate_is_pruned_with_the_constraint_set(study):
    searcher = searcher_on(study)
    searcher.suggest("a")
    searcher.on_trial_refused("a", Deny("max_params", "too many", {"max_params": 0.5}))
    assert only(study).state == TrialState.PRUNED
    assert 0.5 in only(study).system_attrs.values() or "max_params" in str(only(study).system_attrs)
    assert only(study).user_attrs[RECORD]["reason"] == "too many"


@pytest.mark.parametrize("rule", ["failed", "finite_score"])
def test_a_candidate_that_failed_is_told_fail_and_no_constraint(study, rule):
    searcher = searcher_on(study)
    searcher.suggest("a")
    searcher.on_trial_refused("a", Deny(rule, "boom"))
    assert only(study).state == TrialState.FAIL
    assert "constraint" not in str(only(study).system_attrs)
    assert searcher.failures_in_a_row == 1


def test_a_candidate_whose_lease_was_lost_is_proposed_again_and_has_not_failed(study):
    asked = []
    searcher = searcher_on(study, one_more=lambda: asked.append("one more"))
    first = searcher.suggest("a")
    searcher.on_trial_result("a", result(0.2, step=1))
    searcher.on_trial_refused("a", Deny("lease", "its worker died"))
    assert (searcher.failures_in_a_row, asked) == (0, ["one more"])
    assert searcher.suggest("b") == first
    searcher.on_trial_complete("b", result(0.5))
    assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL, TrialState.COMPLETE]
    assert list(frame(study)["verdict"]) == [Verdict.CUT, Verdict.MEASURED]
    assert trained_count(study) == 1
    assert known_outcomes(study)[request_digest(first)].number == 1


def test_a_candidate_that_loses_its_lease_again_and_again_has_failed(study):
    searcher = searcher_on(study)
    for name in range(MOST_LOST + 1):
        config = searcher.suggest(str(name))
        searcher.on_trial_refused(str(name), Deny("lease", "its worker died"))
    assert searcher.failures_in_a_row == 1
    assert {trial.params["width"] for trial in study.get_trials()} == {config["width"]}
    assert frame(study)["verdict"].iloc[-1] == Verdict.FAILED


def test_a_baseline_whose_lease_was_lost_is_run_again_alone(study):
    searcher = searcher_on(study, baseline={"width": 7})
    searcher.suggest("a")
    searcher.on_trial_refused("a", Deny("lease", "its worker died"))
    assert searcher.suggest("b") == {"width": 7}
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("b", result(0.3))
    assert searcher.suggest("c") != {"width": 7}
    assert bool(frame(study)["baseline"].iloc[1])


def test_a_known_configuration_is_answered_from_its_record(study):
    searcher = searcher_on(study, widths=(1, 2))
    widths = []
    for name in ("a", "b"):
        widths.append(searcher.suggest(name)["width"])
        searcher.on_trial_complete(name, result(0.1 * widths[-1]))
    assert searcher.suggest("c") == Searcher.FINISHED
    assert sorted(widths) == [1, 2]
    table = frame(study)
    known = table[table["verdict"] == Verdict.KNOWN]
    assert len(known) >= PATIENCE
    told = {trial.number: trial for trial in study.get_trials()}
    assert all(told[twin.number].value == told[twin.same_as].value for twin in known.itertuples())


def test_the_twin_of_a_running_candidate_waits_for_its_score(study):
    searcher = searcher_on(study, widths=(1, 1))
    searcher.suggest("a")
    assert searcher.suggest("b") == Searcher.FINISHED
    searcher.on_trial_complete("a", result(0.4))
    assert {trial.value for trial in study.get_trials()} == {0.4}
    assert len(study.get_trials()) > 1


def test_a_sampler_that_insists_on_refused_specs_is_answered_by_a_feasible_draw_elsewhere(study):
    searcher = searcher_on(study)
    study.sampler = optuna.samplers.PartialFixedSampler({"width": 40}, study.sampler)
    proposals = []
    for _ in range(PATIENCE + 1):
        proposals.append(searcher.suggest("a")["width"])
        if proposals[-1] ** 2 > CEILING:
            searcher.on_trial_refused("a", judge(searcher._price({"width": proposals[-1]})))
    assert proposals[0] == 40
    assert proposals[-1] ** 2 <= CEILING
    assert proposals.count(40) == 1


def test_a_space_without_a_feasible_spec_is_said_to_have_none(study):
    searcher = searcher_on(study, widths=(30, 31))
    with pytest.raises(SearchExhausted, match="none of 2 random specs"):
        refuse_for_ever(searcher)


def refuse_for_ever(searcher):
    while searcher.suggest("a"):
        searcher.on_trial_refused("a", Deny("max_params", "too many", {"max_params": 1.0}))


def test_the_baseline_is_proposed_first_and_nothing_beside_it(study):
    searcher = searcher_on(study, baseline={"width": 7})
    assert searcher.suggest("a") == {"width": 7}
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", result(0.3))
    assert searcher.suggest("b") is not None
    assert bool(frame(study)["baseline"].iloc[0])


def test_a_baseline_that_fails_ends_the_search(study):
    searcher = searcher_on(study, baseline={"width": 7})
    searcher.suggest("a")
    searcher.on_trial_refused("a", Deny("failed", "boom"))
    assert searcher.suggest("b") == Searcher.FINISHED
    assert searcher.stopped_by == "the baseline was failed: boom"


def test_the_best_is_one_that_was_trained_to_the_end(study):
    searcher = searcher_on(study)
    for name, score, step in (("a", 0.5, 3), ("b", 0.9, 2)):
        searcher.suggest(name)
        searcher.on_trial_complete(name, result(score, step))
    found = best(study)
    assert found is not None
    assert found["score"] == 0.5


def test_the_study_is_read_back_from_its_file(study, tmp_path):
    searcher = searcher_on(study)
    searcher.suggest("a")
    searcher.on_trial_complete("a", result(0.5))
    again = open_study(tmp_path / "study.log", "tested", SAMPLERS["random"](0))
    assert [trial.value for trial in again.get_trials()] == [0.5]


def test_a_candidate_that_was_mutated_is_told_as_what_it_became(study):
    searcher = searcher_on(study)
    proposed = searcher.suggest("a")
    searcher.on_trial_complete("a", {**result(0.5), "config/width": 3})
    first, second = study.get_trials()
    assert (first.state, first.params) == (TrialState.PRUNED, proposed)
    assert (second.state, second.params, second.values) == (TrialState.COMPLETE, {"width": 3}, [0.5])
    assert second.user_attrs[RECORD]["claim"]["params"] == 9
    assert best(study)["config"] == {"width": 3}
    assert list(frame(study)["verdict"]) == [Verdict.MUTATED, Verdict.MEASURED]


def test_what_is_enqueued_is_proposed_before_the_sampler_is_asked(study):
    searcher = searcher_on(study, enqueued=[{"width": 7}, {"width": 9}, {"width": 7}])
    assert [searcher.suggest(name) for name in "ab"] == [{"width": 7}, {"width": 9}]
    assert searcher.suggest("c") not in ({"width": 7}, {"width": 9})


def test_a_study_that_is_taken_up_again_runs_nothing_twice(study):
    first = searcher_on(study, baseline={"width": 2})
    first.suggest("a")
    first.on_trial_complete("a", result(0.5))
    again = searcher_on(study, baseline={"width": 2}, enqueued=[{"width": 2}, {"width": 3}])
    assert again.suggest("b") == {"width": 3}
    assert len(study.trials) == 2


def test_several_objectives_are_told_together(tmp_path):
    objectives = ("score", "params", "latency")
    study = open_study(tmp_path / "many.log", "many", SAMPLERS["tpe"](0), objectives)
    searcher = searcher_on(study, objectives=objectives)
    config = searcher.suggest("a")
    searcher.on_trial_result("a", result(0.2, step=1))
    searcher.on_trial_complete("a", {**result(0.5), "latency_ms": 1.5})
    assert only(study).values == [0.5, config["width"] ** 2, 1.5]
    row = frame(study).iloc[0]
    assert (row["latency_ms"], row["pareto"]) == (1.5, True)
