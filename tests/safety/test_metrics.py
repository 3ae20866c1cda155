"""The values of a ledger's metrics."""

import math
from dataclasses import replace

import pytest

from safety import Deny, Governor, Report
from safety.drills import Canary
from safety.metrics import METRICS, MOST_RULES, MOST_SWEEPS, samples
from safety.observed import Improvement, Observed, Tally, observe
from tests.safety.fakes import claim, limits, request


@pytest.fixture
def values(ledger, clock):
    """What a ledger's metrics say: value by name and the values of the labels."""

    def read():
        with ledger.reading() as connection:
            found = observe(connection, now_ms=clock.wall, alive_ms=clock.wall - 500, before=Tally())
        return by_place(samples(found))

    return read


def by_place(found):
    return {(one.name, *one.labels.values()): one.value for one in found}


def test_every_sample_has_the_labels_of_its_metric_and_a_finite_value(ledger, values, clock):
    ledger.record_drill([Canary(node="n", kind="deaf", latency_ms=700)], 2000, "ann")
    ledger.reserve(request())
    ledger.refuse("s", "s/2", Deny("max_params", "why"))
    with ledger.reading() as connection:
        found = samples(observe(connection, now_ms=clock.wall, alive_ms=clock.wall, before=Tally()))
    for sample in found:
        assert tuple(sample.labels) == METRICS[sample.name].labels, sample
        assert math.isfinite(sample.value)
    assert {sample.name for sample in found} == set(METRICS) - ABSENT_HERE
    assert len({(one.name, *one.labels.values()) for one in found}) == len(found)


# none: every metric has a value in a ledger where something has happened
ABSENT_HERE: set[str] = set()


def test_the_governor_is_alive_when_it_last_took_calls(values, clock):
    assert values()["rsi_governor_alive_timestamp_seconds",] == (clock.wall - 500) / 1000


def test_budgets_of_the_cluster_and_of_each_sweep_are_told_and_caps_where_there_are_any(ledger, values):
    ledger.reserve(request("s/1"))
    ledger.reserve(request("s/2"))
    grant = ledger.activate("s/1", "d1", "w1")
    ledger.settle(grant.lease, grant.fence, grant.used(reports=5, elapsed_ms=1))
    found = values()
    assert found["rsi_budget_spent", "cluster", "trials"] == 1
    assert found["rsi_budget_held", "cluster", "trials"] == 1
    assert found["rsi_budget_cap", "cluster", "trials"] == 10
    assert found["rsi_budget_share", "cluster", "trials"] == 0.2
    assert found["rsi_budget_spent", "sweep:s", "train_gflop"] == 10
    assert found["rsi_budget_overrun", "sweep:s", "train_gflop"] == 0
    assert ("rsi_budget_cap", "sweep:s", "train_gflop") not in found
    assert ("rsi_budget_share", "sweep:s", "train_gflop") not in found


def test_the_largest_of_what_runs_is_held_against_each_ceiling(ledger, values):
    assert values()["rsi_ceiling_share", "s", "max_params"] == 0
    ledger.reserve(request("s/1", params=900))
    ledger.reserve(request("s/2", params=100))
    found = values()
    assert found["rsi_ceiling_share", "s", "max_params"] == 0.9
    assert found["rsi_ceiling_share", "s", "max_flops"] == claim().forward_flops / 10_000
    assert found["rsi_ceiling_share", "s", "max_memory"] == claim().memory_bytes / 100_000
    assert ("rsi_ceiling_share", "s", "max_train_flops") not in found  # these limits name none
    ledger.void("s/1", "pruned")
    assert values()["rsi_ceiling_share", "s", "max_params"] == 0.1


@pytest.mark.parametrize(("score", "part"), [(0.855, 0.9), (0.475, 0.5), (0.0, 0.0)])
def test_the_highest_that_a_capability_has_reached_is_held_against_its_ceiling(ledger, values, score, part):
    assert ("rsi_ceiling_share", "s", "max_performance.reasoning") not in values()
    ledger.reserve(request())
    ledger.activate("s/1", "d1", "w1")
    for told in (score, score / 2):
        Governor(ledger).report("s/1", Report(score=0.5, domains={"reasoning": told}))
    assert values()["rsi_ceiling_share", "s", "max_performance.reasoning"] == part


@pytest.mark.parametrize(("ceilings", "part"), [({"reasoning": 0.5, "b": 1.0}, 0.8), ({"b": 1.0}, None)])
def test_a_capability_is_held_against_the_ceiling_in_force(ledger, clock, ceilings, part):
    ledger.reserve(request())
    ledger.activate("s/1", "d1", "w1")
    Governor(ledger).report("s/1", Report(score=0.5, domains={"reasoning": 0.4}))
    with ledger.reading() as connection:
        found = observe(connection, now_ms=clock.wall, alive_ms=clock.wall, before=Tally())
    (running,) = found.overview.sweeps
    policy = running.sweep.limits
    policy = policy.model_copy(
        update={"bounds": policy.bounds.model_copy(update={"max_performance": ceilings})}
    )
    running = replace(running, sweep=replace(running.sweep, limits=policy))
    told = by_place(samples(replace(found, overview=replace(found.overview, sweeps=[running]))))
    assert told.get(("rsi_ceiling_share", "s", "max_performance.reasoning")) == part


def test_leases_are_counted_by_state_and_sweeps_too(ledger, values):
    ledger.open_sweep("f", limits())
    ledger.freeze("f", "odd")
    ledger.open_sweep("c", limits())
    ledger.close_sweep("c", {})
    for key in ("s/1", "s/2", "s/3"):
        ledger.reserve(request(key))
    ledger.activate("s/1", "d1", "w1")
    found = values()
    assert found["rsi_leases", "s", "active"] == 1
    assert found["rsi_leases", "s", "reserved"] == 2
    states = {state: found["rsi_sweeps", state] for state in ("open", "frozen", "killed", "closed")}
    assert states == {"open": 1, "frozen": 1, "killed": 0, "closed": 1}
    ledger.kill("fire", "ann")
    assert values()["rsi_killed",] == 1
    assert values()["rsi_sweeps", "killed"] == 2


def test_a_sweep_that_is_closed_has_no_values_of_its_own_any_more(ledger, values):
    ledger.reserve(request())
    assert any("s" in place or "sweep:s" in place for place in values())
    ledger.close_sweep("s", {})
    assert not any("s" in place or "sweep:s" in place for place in values())


def test_a_shutdown_stands_until_it_is_released_and_alarms_until_it_is_acknowledged(ledger, values):
    assert values()["rsi_incidents_standing",] == values()["rsi_incidents_unacknowledged",] == 0
    incident = ledger.shut_down("s", "fire", "ann")
    assert values()["rsi_incidents_standing",] == values()["rsi_incidents_unacknowledged",] == 1
    ledger.acknowledge(incident.number, "seen", "ann")
    assert values()["rsi_incidents_standing",] == 1
    assert values()["rsi_incidents_unacknowledged",] == 0


def test_admissions_and_refusals_are_told_by_rule(ledger, values):
    assert values()["rsi_admissions",] == 0
    ledger.reserve(request())
    ledger.refuse("s", "s/2", Deny("max_params", "why"))
    assert values()["rsi_admissions",] == 1
    assert values()["rsi_refusals", "deny", "max_params"] == 1


def test_a_drill_is_told_by_its_slowest_canary_and_without_one_that_lives(ledger, values, clock):
    assert ("rsi_drill_passed",) not in values()
    fast, slow = (Canary(node="n", kind="deaf", latency_ms=ms) for ms in (700, 1900))
    ledger.record_drill([slow, fast], 2000, "ann")
    found = values()
    assert found["rsi_drill_latency_seconds",] == 1.9
    assert (found["rsi_drill_passed",], found["rsi_drill_target_seconds",]) == (1, 2)
    assert found["rsi_drill_timestamp_seconds",] == clock.wall / 1000
    clock.wall += 1000
    ledger.record_drill([fast, Canary(node="n", kind="stuck", latency_ms=None)], 2000, "ann")
    assert values()["rsi_drill_passed",] == 0
    assert ("rsi_drill_latency_seconds",) not in values()


def test_an_improvement_is_told_with_its_ceiling_or_as_undefined(ledger, values, clock):
    assert values()["rsi_improvement_rate", "s"] == 0
    assert values()["rsi_improvement_ceiling", "s"] == 0.1
    assert values()["rsi_improvement_undefined", "s"] == 0


@pytest.mark.parametrize("rate", [None, math.inf])
def test_an_improvement_that_is_no_number_has_no_rate(rate, ledger, clock):
    with ledger.reading() as connection:
        known = observe(connection, now_ms=clock.wall, alive_ms=clock.wall, before=Tally())
    found = by_place(samples(changed(known, improvements=[improvement("odd", rate)])))
    assert found["rsi_improvement_undefined", "odd"] == 1
    assert ("rsi_improvement_rate", "odd") not in found


def improvement(lineage, rate):
    return Improvement(lineage=lineage, rate=rate, ceiling=0.1)


def changed(known, **values):
    fields = ("alive_ms", "overview", "improvements", "tally")
    return Observed(**{name: getattr(known, name) for name in fields} | values)


# --- ceilings of what has a curve of its own


def test_of_too_many_sweeps_those_nearest_to_a_ceiling_have_curves(ledger, values):
    for number in range(MOST_SWEEPS + 1):
        ledger.open_sweep(f"a{number}", limits())
    ledger.reserve(request("a7/1", sweep="a7", params=5))
    ledger.reserve(request("s/1", params=900))
    told = {place[1] for place in values() if place[0] == "rsi_ceiling_share"}
    assert len(told) == MOST_SWEEPS
    assert {"s", "a7"} <= told
    assert values()["rsi_sweeps", "open"] == MOST_SWEEPS + 2


def test_of_too_many_lineages_those_nearest_to_their_ceiling_have_curves(ledger, clock):
    with ledger.reading() as connection:
        known = observe(connection, now_ms=clock.wall, alive_ms=clock.wall, before=Tally())
    many = [improvement(f"a{number}", number / 1e6) for number in range(MOST_SWEEPS)]
    found = by_place(samples(changed(known, improvements=[*many, improvement("odd", None)])))
    told = {place[1] for place in found if place[0] == "rsi_improvement_ceiling"}
    assert len(told) == MOST_SWEEPS
    assert "odd" in told
    assert "a0" not in told


def test_of_too_many_rules_the_later_ones_are_counted_together(ledger, clock):
    with ledger.reading() as connection:
        known = observe(connection, now_ms=clock.wall, alive_ms=clock.wall, before=Tally())
    rows = {("incident", f"r{number}"): 2 for number in range(MOST_RULES + 3)}
    found = by_place(samples(changed(known, tally=Tally(seq=9, rows=rows))))
    assert found["rsi_refusals", "other", "other"] == 6
    assert sum(place[0] == "rsi_refusals" for place in found) == MOST_RULES + 1
