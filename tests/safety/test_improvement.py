"""Improvement over a lineage's history: the window, what happens on excess, and runaway gains."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import Allow, Deny, Hold, Promotion, improvement, judge_promotion
from safety.improvement import MS_PER_HOUR, compounded, is_runaway, room_from_ms
from tests.safety.fakes import limits

LIMITS = limits()
NOW = 1_700_000_000_000
DAY = 24 * MS_PER_HOUR


def step(old, new, *, at_ms=NOW, mode="max"):
    return Promotion(lineage="a", key=f"{old}-{new}-{at_ms}", at_ms=at_ms, old=old, new=new, mode=mode)


def climb(*scores, at_ms=NOW - MS_PER_HOUR, mode="max"):
    """Promotions from score to score, a second after one another."""
    return [
        step(old, new, at_ms=at_ms + 1000 * place, mode=mode)
        for place, (old, new) in enumerate(pairwise(scores))
    ]


# --- one step


def test_scores_count_as_the_decimals_that_are_written():
    assert improvement(old=0.5, new=0.55) == 0.1
    assert judge_promotion(LIMITS, [], step(0.5, 0.55)) == Allow()
    assert isinstance(judge_promotion(LIMITS, [], step(0.5, math.nextafter(0.55, 1))), Hold)


@pytest.mark.parametrize("new", [None, "0.5", True, 10**400, math.nan])
def test_what_is_no_number_is_an_undefined_improvement(new):
    verdict = judge_promotion(LIMITS, [], step(0.5, new))
    assert verdict.rule == "max_improvement_rate"
    assert verdict.reason.endswith("is undefined")
    assert judge_promotion(LIMITS, [], step(new, 0.5)) == Hold(verdict.rule, verdict_text(new))


def verdict_text(old):
    return f"the improvement from {old!r:.60} to 0.5 is undefined"


def test_an_improvement_beyond_any_float_is_infinite():
    assert improvement(old=5e-324, new=1e308) == math.inf
    assert improvement(old=-5e-324, new=-1e308) == -math.inf


def test_a_mode_that_is_neither_is_refused():
    with pytest.raises(ValueError, match="mode: expected max or min, found 'mean'"):
        step(1.0, 2.0, mode="mean")


# --- the window


def test_steps_that_reach_the_ceiling_exactly_are_allowed_and_the_next_float_is_held():
    history = climb(0.5, 0.52, 0.53)
    assert judge_promotion(LIMITS, history, step(0.53, 0.55)) == Allow()
    verdict = judge_promotion(LIMITS, history, step(0.53, math.nextafter(0.55, 1)))
    assert verdict == Hold(
        "max_improvement_rate",
        "improvement +10.0% of lineage a in 3 promotions within 24 h is over the ceiling of 10.0%",
    )


def test_steps_of_two_sweeps_from_the_same_champion_count_together():
    assert judge_promotion(LIMITS, [], step(1.0, 1.06)) == Allow()
    assert isinstance(judge_promotion(LIMITS, [step(1.0, 1.06)], step(1.0, 1.06)), Hold)


def test_what_is_older_than_the_window_does_not_count():
    for age, expected in ((DAY, Hold), (DAY + 1, Allow)):
        history = [step(1.0, 1.06, at_ms=NOW - age)]
        assert isinstance(judge_promotion(LIMITS, history, step(1.06, 1.12)), expected)


def test_a_shorter_window_forgets_sooner():
    history = [step(1.0, 1.06, at_ms=NOW - 2 * MS_PER_HOUR)]
    assert judge_promotion(limits(improvement_window_hours=1), history, step(1.06, 1.12)) == Allow()


def test_promotions_that_a_clock_set_back_puts_into_the_future_count():
    assert isinstance(judge_promotion(LIMITS, [step(1.0, 1.06, at_ms=NOW + DAY)], step(1.06, 1.12)), Hold)


def test_a_loss_makes_no_room_for_a_later_gain():
    assert isinstance(judge_promotion(LIMITS, climb(1.0, 1.06, 0.8), step(0.8, 0.85)), Hold)


def test_less_is_better_adds_up_too():
    history = climb(1.0, 0.94, mode="min")
    assert judge_promotion(LIMITS, [], step(0.94, 0.88, mode="min")) == Allow()
    assert isinstance(judge_promotion(LIMITS, history, step(0.94, 0.88, mode="min")), Hold)


def test_an_undefined_step_leaves_its_whole_window_undefined():
    history = [step(0.0, 0.5, at_ms=NOW - DAY)]
    verdict = judge_promotion(LIMITS, history, step(0.5, 0.51))
    assert verdict.reason == "the improvement of lineage a within 24 h is undefined"
    history = [step(0.0, 0.5, at_ms=NOW - DAY - 1)]
    assert judge_promotion(LIMITS, history, step(0.5, 0.51)) == Allow()


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=6))
def test_more_promotions_never_compound_to_less(scores):
    rates = [compounded(climb(*scores[:count])) for count in range(1, len(scores) + 1)]
    assert rates == sorted(rates)


# --- on excess


def test_throttled_is_what_waits_until_the_window_has_room():
    throttle = limits(on_excess="throttle")
    history = [
        step(1.0, 1.02, at_ms=NOW - 3000),
        step(1.02, 1.08, at_ms=NOW - 2000),
        step(1.08, 1.1, at_ms=NOW),
    ]
    verdict = judge_promotion(throttle, history, step(1.1, 1.16))
    assert verdict.until_ms == NOW - 2000 + DAY + 1
    for at_ms, expected in ((verdict.until_ms - 1, Hold), (verdict.until_ms, Allow)):
        assert isinstance(judge_promotion(throttle, history, step(1.1, 1.16, at_ms=at_ms)), expected)


def test_room_is_counted_by_time_whatever_order_a_clock_that_was_set_back_leaves():
    history = [step(1.0, 1.03, at_ms=NOW - ago) for ago in (1000, 3000, 2000)]
    assert room_from_ms(LIMITS, history, step(1.0, 1.04)) == NOW - 2000 + DAY + 1


def test_a_step_that_is_over_the_ceiling_by_itself_waits_for_a_human_however_long():
    verdict = judge_promotion(limits(on_excess="throttle"), climb(1.0, 1.01), step(1.01, 1.5))
    assert (type(verdict), verdict.until_ms) == (Hold, 0)


def test_held_is_held_without_a_time():
    assert judge_promotion(LIMITS, climb(1.0, 1.06), step(1.06, 1.12)).until_ms == 0


def test_excess_denies_where_the_limits_choose_to_shut_down():
    shutdown = limits(on_excess="shutdown")
    for history, new in (([], 1.2), (climb(1.0, 1.06), 1.12)):
        verdict = judge_promotion(shutdown, history, step(history[-1].new if history else 1.0, new))
        assert (type(verdict), verdict.rule) == (Deny, "max_improvement_rate")


@pytest.mark.parametrize("choice", ["hold", "throttle", "shutdown"])
def test_what_is_undefined_is_held_for_a_human_whatever_the_limits_choose(choice):
    for old, new in ((0.0, 0.5), (-0.1, 0.1), (math.nan, 0.5), (0.5, -0.5)):
        verdict = judge_promotion(limits(on_excess=choice), [], step(old, new))
        assert (type(verdict), verdict.until_ms) == (Hold, 0)


def test_an_undefined_step_outside_the_window_does_not_soften_what_the_limits_choose():
    old = [step(0.0, 0.5, at_ms=NOW - DAY - 1)]
    assert isinstance(judge_promotion(limits(on_excess="shutdown"), old, step(0.5, 0.6)), Deny)


def test_room_comes_never_for_what_is_too_much_alone():
    assert room_from_ms(LIMITS, climb(1.0, 1.05), step(1.05, 2.0)) is None


# --- runaway


def gains(*values, start=1.0):
    scores = [start]
    for value in values:
        scores.append(round(scores[-1] + value, 12))
    return climb(*scores)


def test_three_gains_each_over_half_again_the_one_before_are_a_runaway():
    assert is_runaway(LIMITS, gains(0.1, 0.15001, 0.23))
    assert is_runaway(LIMITS, gains(0.5, 0.1, 0.16, 0.3))


def test_exactly_half_again_is_no_runaway_and_the_next_float_is():
    exact = climb(0.5, 0.6, 0.75, 0.975)  # of floats, 0.75 - 0.6 is more than 1.5 * (0.6 - 0.5)
    assert not is_runaway(LIMITS, exact)
    over = climb(0.5, 0.6, math.nextafter(0.75, 1), 0.98)
    assert is_runaway(LIMITS, over)


@pytest.mark.parametrize(
    "values",
    [
        (),
        (0.1,),
        (0.1, 0.2),
        (0.1, 0.2, 0.25),
        (0.1, 0.12, 0.5),
        (0.0, 0.1, 0.2),
        (-0.1, 0.1, 0.2),
        (0.2, 0.4, -1),
    ],
)
def test_fewer_gains_slower_ones_and_losses_are_no_runaway(values):
    assert not is_runaway(LIMITS, gains(*values))


def test_the_guides_own_runaway_is_found_and_only_its_last_gains_count():
    guide = gains(*(0.1 * 1.6**i for i in range(5)))
    assert is_runaway(LIMITS, guide)
    assert not is_runaway(LIMITS, [*guide, *climb(guide[-1].new, guide[-1].new + 0.1)])


def test_less_is_better_runs_away_downwards():
    down = climb(1.0, 0.9, 0.7, 0.3, mode="min")
    assert is_runaway(LIMITS, down)
    assert not is_runaway(LIMITS, climb(1.0, 0.9, 0.7, 0.3))


def test_a_gain_from_zero_counts_though_its_rate_is_undefined():
    assert is_runaway(LIMITS, climb(0.0, 0.1, 0.3, 0.7))


def test_a_score_that_is_no_number_is_no_part_of_a_runaway():
    assert not is_runaway(LIMITS, [*climb(0.1, 0.2, 0.4), step(0.4, math.nan)])


def test_the_limits_name_factor_and_length():
    assert is_runaway(limits(runaway_length=2), gains(0.1, 0.2))
    assert not is_runaway(limits(runaway_length=4), gains(0.1, 0.2, 0.4))
    assert not is_runaway(limits(runaway_factor=2.0), gains(0.1, 0.2, 0.4))


@pytest.mark.parametrize("choice", ["hold", "throttle", "shutdown"])
def test_the_promotion_that_completes_a_runaway_is_denied_whatever_the_limits_choose(choice):
    verdict = judge_promotion(limits(on_excess=choice), climb(0.5, 0.51, 0.53), step(0.53, 0.57))
    assert verdict == Deny(
        "runaway", "lineage a gained 0.01, 0.02, 0.04: each more than 1.5 times the one before"
    )


def test_a_lineage_that_has_run_away_is_denied_whatever_comes_next():
    assert judge_promotion(LIMITS, climb(0.5, 0.51, 0.53, 0.57), step(0.57, 0.571)).rule == "runaway"


def test_gains_beyond_any_float_are_told_too():
    assert judge_promotion(LIMITS, climb(-1e-3, 1e-3, 1.0), step(-1e308, 1e308)).reason.count("inf") == 1
