import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import (
    Allow,
    Deny,
    Hold,
    Measured,
    Report,
    Usage,
    improvement,
    judge,
    judge_capability,
    judge_claim,
    judge_report,
    max_improvement_rate,
    rules,
)
from tests.safety.fakes import claim, limits

LIMITS = limits()
UNDECIDED = Hold("h", "wait")


def scored(value, **domains):
    return Report(score=value, domains=domains)


# --- ceilings of a claim


def test_a_claim_exactly_at_every_ceiling_is_allowed():
    assert judge_claim(LIMITS, claim(params=1000, forward_flops=10_000, memory_bytes=100_000)) == Allow()


@pytest.mark.parametrize(
    ("field", "ceiling", "rule"),
    [
        ("params", 1000, "max_params"),
        ("forward_flops", 10_000, "max_flops"),
        ("memory_bytes", 100_000, "max_memory"),
    ],
)
def test_one_over_a_ceiling_is_denied_with_the_numbers(field, ceiling, rule):
    verdict = judge_claim(LIMITS, claim(**{field: ceiling + 1}))
    assert isinstance(verdict, Deny)
    assert verdict.rule == rule
    assert f"{ceiling + 1:,}" in verdict.reason
    assert f"ceiling of {ceiling:,}" in verdict.reason
    assert verdict.excess == {rule: pytest.approx(1 / ceiling)}


def test_a_denial_tells_the_excess_over_each_ceiling():
    verdict = judge_claim(LIMITS, claim(params=2000, memory_bytes=150_000))
    assert verdict.rule == "max_params"
    assert verdict.excess == {"max_params": 1.0, "max_memory": 0.5}
    assert verdict.reason.count(";") == 1


@given(st.integers(0, 3000), st.integers(0, 30_000), st.integers(0, 300_000))
def test_a_claim_is_allowed_exactly_where_it_is_under_every_ceiling(params, flops, memory):
    verdict = judge_claim(LIMITS, claim(params=params, forward_flops=flops, memory_bytes=memory))
    fits = params <= 1000 and flops <= 10_000 and memory <= 100_000
    assert isinstance(verdict, Allow if fits else Deny)


def with_training(most):
    return LIMITS.model_copy(update={"bounds": LIMITS.bounds.model_copy(update={"max_train_flops": most})})


@pytest.mark.parametrize(("own", "ancestors"), [(100, 0), (60, 40), (0, 100)])
def test_a_claims_training_and_its_ancestors_are_under_one_ceiling_together(own, ancestors):
    asked = claim(train_flops=own, ancestor_flops=ancestors)
    assert judge_claim(with_training(100), asked) == judge_claim(with_training(None), asked) == Allow()
    assert judge_claim(with_training(99), asked) == Deny(
        "max_train_flops",
        "100 FLOPs of training, ancestors' included, is over the ceiling of 99",
        {"max_train_flops": 1 / 99},
    )


def test_each_of_a_claims_models_has_its_share_of_the_training_and_all_of_the_ancestors():
    asked = claim(train_flops=91, ancestor_flops=40, models=3)
    assert judge_claim(with_training(71), asked) == Allow()
    assert judge_claim(with_training(70), asked).rule == "max_train_flops"


@pytest.mark.parametrize("most", [2_000_000_000, 1_000_000_001])
def test_a_champion_with_as_many_gflop_of_training_as_the_ceiling_is_allowed(most):
    assert rules.judge_trained(with_training(most), 2) == Allow()
    assert rules.judge_trained(with_training(most), 3).rule == "max_train_flops"


def test_a_champion_whose_training_nobody_tells_is_refused_where_that_has_a_ceiling():
    assert rules.judge_trained(with_training(1), None).rule == "max_train_flops"
    assert rules.judge_trained(with_training(None), None) == Allow()


def test_integers_beyond_a_floats_precision_are_compared_exactly():
    big = limits().model_copy(update={"bounds": LIMITS.bounds.model_copy(update={"max_params": 2**61})})
    assert judge_claim(big, claim(params=2**61)) == Allow()
    assert isinstance(judge_claim(big, claim(params=2**61 + 1)), Deny)


def test_a_rule_that_raises_denies(monkeypatch):
    def broken(_limits, _claim):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(rules, "ADMISSION", (*rules.ADMISSION, broken))
    assert judge_claim(LIMITS, claim()) == Deny("broken", "the rule raised ZeroDivisionError: oops")


# --- the order of verdicts


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], Allow),
        ([Allow(), Allow()], Allow),
        ([Allow(), UNDECIDED], Hold),
        ([UNDECIDED, Deny("d", "no"), Allow()], Deny),
        ([Deny("d", "no"), UNDECIDED], Deny),
    ],
)
def test_deny_goes_over_hold_and_hold_over_allow(verdicts, expected):
    assert isinstance(judge(verdicts), expected)


# --- reports


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, None, "0.5", True, 10**400, Fraction(10**400), 1j, [0.5]],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_no_finite_number_is_denied_as_score_and_as_domain(value):
    for report in (scored(value), scored(0.5, reasoning=value), scored(0.5, unnamed=value)):
        verdict = judge_report(LIMITS, claim(), report)
        assert verdict.rule == "finite_score"
        assert len(verdict.reason) < 120


def test_a_domain_that_is_named_score_does_not_hide_the_score():
    assert isinstance(judge_report(LIMITS, claim(), scored(math.nan, score=0.5)), Deny)


@pytest.mark.parametrize("value", [0, 1, -3.5, 1e308, Fraction(1, 3)])
def test_finite_numbers_of_any_kind_are_scores(value):
    assert judge_report(LIMITS, claim(), scored(value)) == Allow()


def test_a_domain_exactly_at_its_ceiling_is_allowed_and_the_next_float_is_not():
    assert judge_report(LIMITS, claim(), scored(0.5, reasoning=0.95)) == Allow()
    verdict = judge_report(LIMITS, claim(), scored(0.5, reasoning=math.nextafter(0.95, 1)))
    assert verdict.rule == "max_performance.reasoning"
    assert verdict.reason == "0.9500000000000001 in reasoning is over the ceiling of 0.95"


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_capability_passes_exactly_where_it_is_finite_and_under_its_ceiling(score):
    verdict = judge_report(LIMITS, claim(), scored(0.5, reasoning=score))
    assert isinstance(verdict, Allow if math.isfinite(score) and score <= 0.95 else Deny)


def test_a_ceiling_of_zero_denies_whatever_is_over_it():
    bounds = LIMITS.bounds.model_copy(update={"max_performance": {"deceit": 0.0}})
    none = LIMITS.model_copy(update={"bounds": bounds})
    assert judge_report(none, claim(), scored(0.5, deceit=0.0)) == Allow()
    assert judge_report(none, claim(), scored(0.5, deceit=5e-324)).excess == {
        "max_performance.deceit": math.inf
    }


def test_a_domain_without_a_ceiling_may_reach_anything():
    assert judge_report(LIMITS, claim(), scored(0.5, language=1.0)) == Allow()


USED = {"train_flops": 10 * 10**9, "wall_ms": 60_000, "gpu_ms": 6_000, "reports": 5}


def test_usage_exactly_as_reserved_is_allowed():
    assert judge_report(LIMITS, claim(), Report(score=0.5, usage=Usage(**USED))) == Allow()


@pytest.mark.parametrize("field", USED)
@pytest.mark.parametrize(
    "change", [lambda used: used + 1, lambda _: -1, lambda _: math.nan, str, float, lambda _: None]
)
def test_usage_over_the_reservation_or_no_amount_is_denied(field, change):
    usage = Usage(**{**USED, field: change(USED[field])})
    verdict = judge_report(LIMITS, claim(), Report(score=0.5, usage=usage))
    assert verdict.rule == "within_reservation"
    assert field in verdict.reason


def test_the_first_rule_that_refuses_a_report_decides():
    report = Report(score=math.nan, domains={"reasoning": 1.0}, usage=Usage(reports=99))
    assert judge_report(LIMITS, claim(), report).rule == "finite_score"


def test_a_report_whose_domains_can_not_be_read_is_denied():
    verdict = judge_report(LIMITS, claim(), Report(score=0.5, domains=7))
    assert verdict.rule == "finite_score"
    assert "raised" in verdict.reason


# --- what was built against what was reserved


@pytest.mark.parametrize(("params", "flops"), [(101, 200), (99, 200), (100, 201), (100, 199)])
def test_a_model_that_is_not_the_one_reserved_is_denied_with_both_counts(params, flops):
    verdict = rules.as_reserved(claim(), Measured(params=params, forward_flops=flops))
    assert verdict.reason == f"built {params} parameters and {flops} FLOPs, reserved 100 and 200"


def test_the_model_that_was_reserved_is_allowed():
    assert rules.as_reserved(claim(), Measured(params=100, forward_flops=200)) == Allow()


# --- improvement


def test_improvement_is_relative_to_the_old_and_has_the_sign_of_the_gain():
    assert improvement(old=10, new=11) == 0.1
    assert improvement(old=10, new=9) == -0.1
    assert improvement(old=10, new=9, mode="min") == 0.1
    assert improvement(old=-10, new=-9) == 0.1
    assert improvement(old=-10, new=-9, mode="min") == -0.1
    assert improvement(old=10, new=0) == -1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (0.0, 0.5),
        (-0.0, 0.5),
        (0.0, 0.0),
        (-0.1, 0.1),
        (0.1, -0.1),
        (math.nan, 0.5),
        (0.5, math.nan),
        (math.inf, 0.5),
        (0.5, math.inf),
        (-math.inf, -0.5),
    ],
)
def test_an_undefined_improvement_is_held_for_a_human(old, new):
    assert improvement(old=old, new=new) is None
    assert isinstance(max_improvement_rate(LIMITS, old=old, new=new), Hold)


def test_an_improvement_of_exactly_ten_percent_is_allowed_and_the_next_float_is_held():
    assert max_improvement_rate(LIMITS, old=10.0, new=11.0) == Allow()
    assert isinstance(max_improvement_rate(LIMITS, old=10.0, new=math.nextafter(11.0, 12)), Hold)
    assert max_improvement_rate(LIMITS, old=10.0, new=9.0, mode="min") == Allow()
    assert isinstance(max_improvement_rate(LIMITS, old=10.0, new=math.nextafter(9.0, 8), mode="min"), Hold)


def test_a_held_improvement_tells_rate_and_ceiling():
    verdict = max_improvement_rate(LIMITS, old=0.5, new=0.6)
    assert verdict == Hold("max_improvement_rate", "improvement +20.0% is over the ceiling of 10.0%")


@given(st.floats(), st.floats(), st.sampled_from(["max", "min"]))
def test_any_two_floats_are_allowed_or_held(old, new, mode):
    verdict = max_improvement_rate(LIMITS, old=old, new=new, mode=mode)
    rate = improvement(old=old, new=new, mode=mode)
    assert isinstance(verdict, Allow if rate is not None and rate <= 0.1 else Hold)


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6))
def test_more_of_the_good_is_the_same_improvement_whichever_way_is_better(old, new):
    assert improvement(old=old, new=new) == -improvement(old=old, new=new, mode="min")


# --- capabilities that an evaluator measured


@pytest.mark.parametrize("score", [0.95, 0.0, -1.0, 1e-300])
def test_a_capability_up_to_its_ceiling_is_allowed(score):
    assert judge_capability(LIMITS, {"reasoning": score, "unnamed": 9.0}) == Allow()


@pytest.mark.parametrize(
    "score", [math.nextafter(0.95, 1), 1.0, math.inf, math.nan, None, "0.1", True, 10**400]
)
def test_a_capability_over_its_ceiling_or_no_number_is_denied(score):
    verdict = judge_capability(LIMITS, {"reasoning": score})
    assert isinstance(verdict, Deny)
    assert verdict.rule == "max_performance.reasoning"


def test_a_capability_that_the_limits_name_and_nobody_measured_is_denied():
    verdict = judge_capability(LIMITS, {})
    assert verdict == Deny("max_performance.reasoning", "reasoning has a ceiling of 0.95 and is not measured")
