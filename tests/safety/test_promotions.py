"""Promotions in the ledger: lineages, over all their sweeps."""

import math

import pytest

from safety import Allow, Deny, Governor, Hold, KeyReused, LeaseLost, Ledger, LedgerError
from safety.improvement import MS_PER_HOUR
from tests.safety.fakes import kinds, request
from tests.safety.fakes import limits as limits_of

DAY = 24 * MS_PER_HOUR


def free(**more):
    """Limits under which no human approves a champion; with approvals it is `test_approvals`."""
    return limits_of(require_approval=False, **more)


@pytest.fixture
def family(ledger):
    """Two sweeps of the lineage `family`, and `s` of its own."""
    for name in ("x", "y"):
        ledger.open_sweep(name, free(), "family")
    ledger.open_sweep("own", free())
    return ledger


def last(ledger):
    return ledger.audit()[-1][1]


def test_a_promotion_that_is_allowed_is_kept_with_its_audit_row(family, clock):
    assert family.promote("x", "x/1", 0.5, 0.51) == Allow()
    (kept,) = family.promotions("family")
    assert (kept.key, kept.old, kept.new, kept.mode, kept.at_ms) == ("x/1", 0.5, 0.51, "max", clock.wall)
    assert (last(family).kind, last(family).sweep, last(family).key) == ("promote", "x", "x/1")
    assert last(family).detail == '{"lineage":"family","mode":"max","new":0.51,"old":0.5}'


def test_scores_come_back_as_they_were_to_the_last_bit(family):
    old = math.nextafter(0.1, 1)
    family.promote("x", "x/1", old, math.nextafter(old, 1))
    assert [(one.old, one.new) for one in family.promotions("family")] == [(old, math.nextafter(old, 1))]


def test_a_promotion_asked_for_twice_is_one_and_another_of_its_key_an_error(family, clock):
    family.promote("x", "x/1", 0.5, 0.54)
    clock.wall += 1000
    assert family.promote("x", "x/1", 0.5, 0.54) == Allow()
    with pytest.raises(KeyReused, match="x/1: this key was used for another promotion"):
        family.promote("x", "x/1", 0.5, 0.53)
    assert len(family.promotions("family")) == 1
    assert kinds(family).count("promote") == 1


def test_sweeps_of_one_lineage_share_the_ceiling_and_others_do_not(family):
    assert family.promote("x", "x/1", 1.0, 1.06) == Allow()
    assert isinstance(family.promote("y", "y/1", 1.0, 1.06), Hold)
    assert (last(family).kind, last(family).sweep, last(family).rule) == ("hold", "y", "max_improvement_rate")
    assert family.promote("own", "own/1", 1.0, 1.06) == Allow()
    assert [one.key for one in family.promotions("family")] == ["x/1"]


def test_the_window_moves_on_and_a_restart_forgets_nothing(family, clock, url):
    family.promote("x", "x/1", 1.0, 1.06)
    family.close()
    again = Ledger(url, clock.restart())
    clock.wall += DAY
    assert isinstance(again.promote("y", "y/1", 1.06, 1.12), Hold)
    clock.wall += 1
    assert again.promote("y", "y/1", 1.06, 1.12) == Allow()
    again.close()


def test_the_strictest_limits_of_a_lineage_bind_all_its_sweeps(ledger):
    ledger.open_sweep("x", free(), "family")
    ledger.open_sweep("loose", free(max_improvement_rate=10.0, on_excess="throttle"), "family")
    assert isinstance(ledger.promote("loose", "loose/1", 1.0, 1.2), Hold)


def test_of_several_holds_the_longest_is_told(ledger):
    for name, hours in (("x", 24), ("y", 48)):
        ledger.open_sweep(name, free(on_excess="throttle", improvement_window_hours=hours), "family")
    ledger.promote("x", "x/1", 1.0, 1.06)
    at_ms = ledger.promotions("family")[0].at_ms
    assert ledger.promote("x", "x/2", 1.06, 1.12).until_ms == at_ms + 2 * DAY + 1
    ledger.open_sweep("z", free(), "family")
    assert ledger.promote("x", "x/2", 1.06, 1.12).until_ms == 0


def runaway(ledger):
    ledger.promote("x", "x/1", 0.5, 0.505)
    ledger.promote("y", "y/1", 0.505, 0.515)
    return ledger.promote("x", "x/2", 0.515, 0.535)


def test_a_runaway_over_several_sweeps_shuts_the_whole_lineage_down(family):
    assert family.reserve(request("y/t", sweep="y")) == Allow()
    grant = family.activate("y/t", "d1", "w1")
    assert runaway(family).rule == "runaway"
    assert [family.sweep(name).state for name in ("x", "y", "s")] == ["frozen", "frozen", "open"]
    assert [one.key for one in family.promotions("family")] == ["x/1", "y/1"]
    assert kinds(family)[-4:] == ["incident", "shut_down", "freeze", "freeze"]
    with pytest.raises(LeaseLost, match="frozen: lineage family gained"):
        family.renew(grant.lease, grant.fence)


def test_no_sweep_of_a_lineage_that_was_shut_down_is_opened_or_promotes_any_more(family):
    runaway(family)
    assert isinstance(family.promote("y", "y/2", 0.515, 0.516), Deny)
    with pytest.raises(LedgerError, match="sweep z: its lineage family was shut down: lineage family gained"):
        family.open_sweep("z", free(), "family")
    with pytest.raises(LedgerError, match="sweep x: frozen: lineage family gained"):
        family.open_sweep("x", free())


def test_exactly_half_again_goes_on(family):
    for key, old, new in (("x/1", 0.5, 0.504), ("x/2", 0.504, 0.51), ("x/3", 0.51, 0.519)):
        assert family.promote("x", key, old, new) == Allow()


def test_a_shutdown_that_comes_again_keeps_its_first_reason(family):
    runaway(family)
    assert family.judge_improvement("y", 0.515, 0.6).rule == "runaway"
    with pytest.raises(LedgerError, match=r"gained 0.005, 0.01, 0.02"):
        family.open_sweep("z", free(), "family")


def test_excess_shuts_down_where_the_limits_choose_it(ledger):
    ledger.open_sweep("x", free(on_excess="shutdown"))
    assert isinstance(ledger.judge_improvement("x", 1.0, 1.5), Deny)
    assert ledger.sweep("x").state == "frozen"


@pytest.mark.parametrize(("old", "new"), [(0.0, 0.5), (-0.1, 0.1), (math.nan, 0.5), (0.5, math.inf)])
def test_an_undefined_improvement_is_held_and_promotes_nothing(family, old, new):
    assert isinstance(family.promote("x", "x/1", old, new), Hold)
    assert family.promotions("family") == []
    assert last(family).kind == "hold"


def test_a_sweep_promotes_after_its_end_and_not_while_frozen_or_killed(family):
    family.close_sweep("x", {})
    assert family.promote("x", "x/1", 0.5, 0.51) == Allow()
    family.freeze("y", "why")
    assert family.promote("y", "y/1", 0.5, 0.51) == Deny("frozen", "sweep y is frozen: why")
    assert (last(family).kind, last(family).sweep, last(family).key, last(family).rule) == (
        "deny",
        "y",
        "y/1",
        "frozen",
    )
    assert last(family).detail == '{"lineage":"family","reason":"sweep y is frozen: why"}'
    family.kill("fire", "ann")
    assert family.promote("x", "x/2", 0.51, 0.511) == Deny("killed", "sweep x is killed: fire")
    assert (last(family).kind, last(family).key, last(family).rule) == ("deny", "x/2", "killed")


def test_a_sweep_has_a_lineage_of_its_own_and_keeps_it(family):
    assert [family.sweep(name).lineage for name in ("s", "x")] == ["s", "family"]
    family.open_sweep("x", free())
    family.open_sweep("x", free(), "family")
    with pytest.raises(LedgerError, match="sweep x: of lineage family, not other"):
        family.open_sweep("x", free(), "other")


def test_an_improvement_that_is_judged_is_no_promotion(family):
    rows = len(family.audit())
    assert family.judge_improvement("x", 1.0, 1.06) == Allow()
    assert family.judge_improvement("y", 1.0, 1.06) == Allow()
    assert (family.promotions("family"), len(family.audit())) == ([], rows)


def test_a_governor_promotes_and_opens_sweeps_of_a_lineage(ledger):
    governor = Governor(ledger)
    governor.open_sweep("x", free(), "family")
    assert governor.promote("x", "x/1", 1.0, 0.95, "min") == Allow()
    assert isinstance(governor.judge_improvement("x", 0.95, 0.9, "min"), Hold)
    assert [one.mode for one in ledger.promotions("family")] == ["min"]


def test_a_lineage_that_has_had_its_generations_promotes_nothing_more_and_goes_on(ledger):
    for name in ("x", "y"):
        ledger.open_sweep(name, free(max_generations=2), "family")
    ledger.promote("x", "x/1", 1.0, 1.01)
    assert ledger.promote("y", "y/1", 1.01, 1.02) == Allow()
    for key in ("x/2", "x/3"):
        assert ledger.promote("x", key, 1.02, 1.03) == Deny(
            "max_generations", "generation 3 of lineage family is over the ceiling of 2"
        )
    assert (last(ledger).kind, last(ledger).key, last(ledger).rule) == ("deny", "x/3", "max_generations")
    assert ledger.promote("y", "y/1", 1.01, 1.02) == Allow()  # told again
    assert [one.key for one in ledger.promotions("family")] == ["x/1", "y/1"]
    assert [ledger.sweep(name).state for name in ("x", "y")] == ["open", "open"]
    ledger.open_sweep("other", free())
    assert ledger.promote("other", "other/1", 1.0, 1.01) == Allow()


def test_a_lineage_at_its_end_that_runs_away_by_another_sweeps_limits_is_shut_down(ledger):
    ledger.open_sweep("a", free(max_generations=2), "family")
    ledger.open_sweep("x", free(max_improvement_rate=0.02, on_excess="shutdown"), "family")
    ledger.open_sweep("z", free(max_generations=2, max_improvement_rate=0.5), "family")
    ledger.promote("x", "x/1", 1.0, 1.001)
    ledger.promote("x", "x/2", 1.001, 1.002)
    assert ledger.promote("z", "z/1", 1.002, 1.2).rule == "max_improvement_rate"
    assert ledger.sweep("a").state == "frozen"
