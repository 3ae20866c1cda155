"""What is read of a ledger for its curves."""

import pytest

from safety import Allow, Deny, audit
from safety.drills import Canary
from safety.improvement import MS_PER_HOUR
from safety.observed import Improvement, Tally, observe
from tests.safety.fakes import limits as limits_of
from tests.safety.fakes import request


@pytest.fixture
def observed(ledger, clock):
    def read(before=None):
        with ledger.reading() as connection:
            times = {"now_ms": clock.wall, "alive_ms": clock.wall - 1}
            return observe(connection, **times, before=before or Tally())

    return read


def limits(**more):
    return limits_of(require_approval=False, **more)


def refuse(ledger, key, rule):
    ledger.refuse("s", key, Deny(rule, "why"))


# --- the audit, counted


def test_admissions_and_refusals_are_counted_by_rule(ledger, observed):
    for key in ("s/1", "s/2"):
        ledger.reserve(request(key))
    for rule in ("max_params", "max_params", "budget.cluster.trials"):
        refuse(ledger, "s/3", rule)
    ledger.record_incident("s", "s/1", "overrun", "odd")
    assert dict(observed().tally.rows) == {
        ("reserve", ""): 2,
        ("deny", "max_params"): 2,
        ("deny", "budget.cluster.trials"): 1,
        ("incident", "overrun"): 1,
    }
    assert observed().tally.seq == len(ledger.audit())


def test_only_the_rows_after_those_counted_before_are_read(ledger, observed, monkeypatch):
    refuse(ledger, "s/1", "max_params")
    before = observed().tally
    refuse(ledger, "s/1", "max_params")
    refuse(ledger, "s/1", "max_flops")
    after = observed(before).tally
    assert dict(after.rows) == {("deny", "max_params"): 2, ("deny", "max_flops"): 1}
    only_new = observed(Tally(seq=before.seq)).tally
    assert dict(only_new.rows) == {("deny", "max_params"): 1, ("deny", "max_flops"): 1}
    assert observed(after).tally == after


def test_nothing_is_counted_of_a_ledger_without_rows(observed, ledger):
    with ledger.reading() as connection:
        last = audit.head(connection).seq
    assert dict(observed(Tally(seq=last)).tally.rows) == {}


def test_the_canaries_of_the_latest_drill_are_told_and_not_those_before_it(ledger, clock, observed):
    ledger.record_drill([Canary(node="n", kind="deaf", latency_ms=900)], 2000, "ann")
    before = observed().tally
    clock.wall += 1000
    canaries = [Canary(node="n", kind="deaf", latency_ms=ms) for ms in (700, None)]
    ledger.record_drill(canaries, 2000, "ann")
    for found in (observed(), observed(before)):
        assert found.tally.of_drill(found.overview.drill) == [700, None]


# --- improvement


def test_a_lineage_that_is_worked_on_has_an_improvement_of_nothing_at_first(observed):
    assert list(observed().improvements) == [Improvement(lineage="s", rate=0.0, ceiling=0.1)]


def test_promotions_within_the_window_count_on_top_of_each_other(ledger, clock, observed):
    ledger.open_sweep("x", limits(max_improvement_rate=0.5, improvement_window_hours=24), "family")
    assert ledger.promote("x", "x/1", 1.0, 1.1) == Allow()
    clock.wall += 20 * MS_PER_HOUR
    assert ledger.promote("x", "x/2", 1.1, 1.21) == Allow()
    (family, _) = observed().improvements
    assert (family.lineage, family.ceiling, round(family.rate, 9)) == ("family", 0.5, 0.21)
    assert round(family.share, 9) == 0.42
    clock.wall += 20 * MS_PER_HOUR
    (family, _) = observed().improvements
    assert round(family.rate, 9) == 0.1


def test_a_lineage_keeps_its_improvement_when_its_sweep_is_closed(ledger, observed):
    ledger.open_sweep("x", limits(), "family")
    ledger.promote("x", "x/1", 1.0, 1.05)
    ledger.close_sweep("x", {})
    assert [one.lineage for one in observed().improvements] == ["family", "s"]


def test_a_lineage_without_promotions_is_not_told_of_when_its_sweep_is_closed(ledger, observed):
    ledger.open_sweep("x", limits(), "family")
    ledger.close_sweep("x", {})
    assert [one.lineage for one in observed().improvements] == ["s"]


def test_of_several_limits_those_count_that_leave_the_least_room(ledger, observed):
    for name, ceiling in (("x", 0.4), ("y", 0.2), ("z", 0.3)):
        ledger.open_sweep(name, limits(max_improvement_rate=ceiling), "family")
    ledger.promote("x", "x/1", 1.0, 1.1)
    assert observed().improvements[0].ceiling == 0.2


def test_limits_that_bind_every_sweep_count_too(ledger, observed):
    ledger.tighten(limits(max_improvement_rate=0.05), "ann")
    assert [one.ceiling for one in observed().improvements] == [0.05]


def test_an_undefined_improvement_is_beyond_any_ceiling():
    undefined = Improvement(lineage="a", rate=None, ceiling=0.1)
    endless = Improvement(lineage="a", rate=float("inf"), ceiling=0.1)
    assert undefined.share == endless.share == float("inf")
    assert not undefined.is_number
    assert not endless.is_number
