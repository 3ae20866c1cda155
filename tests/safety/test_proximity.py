"""Warnings of trials that come near a capability ceiling."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import Allow, Deny, Governor, Ledger, Nearness, Report, proximity
from tests.safety.fakes import claim, limits, measured, request

LIMITS = limits()


def level(score, ceiling=0.95):
    bounds = LIMITS.bounds.model_copy(update={"max_performance": {"reasoning": ceiling}})
    near = proximity(LIMITS.model_copy(update={"bounds": bounds}), {"reasoning": score})
    return near[0].level if near else 0


@pytest.mark.parametrize(("score", "expected"), [(0.76, 80), (0.855, 90), (0.9025, 95), (0.95, 95), (0.1, 0)])
def test_a_level_is_reached_exactly_at_it_and_not_before(score, expected):
    assert level(score) == expected
    if expected and score < 0.95:
        assert level(math.nextafter(score, 0)) < expected


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_never_has_a_lower_level(one, other):
    assert level(min(one, other)) <= level(max(one, other))


def test_a_ceiling_of_zero_is_reached_by_zero():
    assert level(0.0, ceiling=0.0) == 95
    assert Nearness(domain="d", score=0.0, ceiling=0.0, level=95).share == 1.0


def test_only_domains_with_a_ceiling_and_a_number_come_near():
    assert proximity(LIMITS, {"language": 1.0, "reasoning": None}) == ()
    assert proximity(LIMITS, {"reasoning": 0.912}) == (
        Nearness(domain="reasoning", score=0.912, ceiling=0.95, level=95),
    )


# --- in the ledger


@pytest.fixture
def report(governor):
    """Begins the trial `s/1` and gives what reports a score in `reasoning`."""
    governor.admit(request())
    governor.activate("s/1", "d1", "w1", measured(claim()))
    return lambda score, of=governor: of.report("s/1", Report(score=0.5, domains={"reasoning": score}))


def warned(ledger):
    return [json.loads(entry.detail)["level"] for _, entry, _ in ledger.audit() if entry.kind == "warning"]


def test_each_level_is_warned_of_once_for_a_trial(report, ledger):
    for score in (0.5, 0.77, 0.78, 0.86, 0.77, 0.86, 0.94, 0.95):
        assert report(score) == Allow()
    assert warned(ledger) == [80, 90, 95]
    entry = next(entry for _, entry, _ in ledger.audit() if entry.kind == "warning")
    assert (entry.sweep, entry.key, entry.rule) == ("s", "s/1", "max_performance.reasoning")
    assert entry.detail == '{"ceiling":0.95,"level":80,"score":0.77}'


def test_levels_that_are_leapt_over_are_not_made_up_for(report, ledger):
    for score in (0.94, 0.8, 0.87):
        report(score)
    assert warned(ledger) == [95]


def test_a_restart_of_the_governor_does_not_warn_again(report, ledger, url, clock):
    report(0.9)
    again = Ledger(url, clock.clock())
    report(0.9, Governor(again))
    again.close()
    assert warned(ledger) == [90]


def test_another_trial_and_another_domain_are_warned_of_by_themselves(report, governor, ledger):
    report(0.9)
    governor.admit(request("s/2"))
    governor.activate("s/2", "d1", "w1", measured(claim()))
    governor.report("s/2", Report(score=0.5, domains={"reasoning": 0.9}))
    assert warned(ledger) == [90, 90]


def test_what_is_denied_is_an_incident_and_no_warning(report, ledger):
    assert isinstance(report(0.96), Deny)
    assert warned(ledger) == []


def test_the_status_tells_the_nearest_approach_of_the_sweep(report, governor, ledger):
    for score in (0.91, 0.93, 0.92, 0.4):
        report(score)
    ledger.open_sweep("t", limits())
    assert governor.status("t").near == ()
    assert governor.status("s").near == (Nearness(domain="reasoning", score=0.93, ceiling=0.95, level=95),)


def test_of_several_trials_the_best_counts(report, governor, ledger):
    report(0.93)
    governor.admit(request("s/2"))
    governor.activate("s/2", "d1", "w1", measured(claim()))
    governor.report("s/2", Report(score=0.5, domains={"reasoning": 0.8}))
    assert [near.score for near in ledger.nearest("s")] == [0.93]


# --- the highest of a sweep, near or not


def highest(ledger, sweep="s"):
    (found,) = [running for running in ledger.overview().sweeps if running.sweep.name == sweep]
    return found.highest


def test_the_highest_score_of_a_sweep_is_known_at_any_level_and_is_no_warning(report, governor, ledger):
    assert highest(ledger) == {}
    for score, known in ((0.0, 0.0), (0.5, 0.5), (0.3, 0.5), (0.6, 0.6), (0.89, 0.89), (0.895, 0.895)):
        report(score)
        assert highest(ledger) == {"reasoning": known}
    assert warned(ledger) == [90]
    ledger.open_sweep("t", limits())
    assert highest(ledger, "t") == {}


def test_a_score_below_the_first_level_is_not_near(report, governor, ledger):
    report(0.5)
    assert governor.status("s").near == ledger.overview().sweeps[0].near == ()


def test_the_highest_is_written_anew_only_where_it_rises_by_over_a_hundredth_of_the_ceiling(report, ledger):
    for score in (0.5, 0.5094, 0.5):
        report(score)
    assert highest(ledger) == {"reasoning": 0.5}
    report(0.51)
    assert highest(ledger) == {"reasoning": 0.51}


def test_the_highest_of_several_trials_is_known_and_a_restart_forgets_none(report, governor, url, clock):
    report(0.6)
    governor.admit(request("s/2"))
    governor.activate("s/2", "d1", "w1", measured(claim()))
    again = Ledger(url, clock.clock())
    Governor(again).report("s/2", Report(score=0.5, domains={"reasoning": 0.4}))
    assert highest(again) == {"reasoning": 0.6}
    again.close()


def test_a_trial_that_is_called_as_its_sweep_is_warned_of_once_all_the_same(governor, ledger):
    governor.admit(request("s"))
    governor.activate("s", "d1", "w1", measured(claim()))
    for score in (0.5, 0.77, 0.79, 0.81):
        governor.report("s", Report(score=0.5, domains={"reasoning": score}))
    assert warned(ledger) == [80]
    assert highest(ledger) == {"reasoning": 0.81}
