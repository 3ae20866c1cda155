import sqlite3
import threading

import psycopg
import pytest
import sqlalchemy as sa

from safety import (
    Allow,
    Deny,
    Hold,
    KeyReused,
    LeaseLost,
    Ledger,
    LedgerError,
    LooserLimits,
    Usage,
    database,
    schema,
)
from safety.endings import SWEEP_SILENCE_MS
from safety.errors import LedgerUnavailable
from tests.safety.databases import deafen, lock, raw
from tests.safety.fakes import GFLOP, amounts, claim, kinds, limits, request

LEASE_MS, GRACE_MS = 15_000, 5_000
USED = Usage(train_flops=2 * GFLOP, wall_ms=7_000, gpu_ms=700, reports=1)


def begun(ledger, key="s/1", holder="w1", **changed):
    assert ledger.reserve(request(key, **changed)) == Allow()
    return ledger.activate(key, "d1", holder)


# --- reserve


def test_a_reservation_holds_its_claim_in_the_clusters_and_in_the_sweeps_budgets(ledger):
    assert ledger.reserve(request()) == Allow()
    for scope in ("cluster", "sweep:s"):
        assert amounts(ledger, "train_gflop", scope) == (10, 0, 0)
        assert amounts(ledger, "trials", scope) == (1, 0, 0)
        assert amounts(ledger, "concurrent_params", scope) == (100, 0, 0)
        assert amounts(ledger, "wall_ms", scope) == (60_000, 0, 0)


def test_a_budget_is_filled_to_its_cap_and_not_one_over(ledger):
    assert all(ledger.reserve(request(f"s/{i}", train_flops=25 * GFLOP)) == Allow() for i in range(4))
    verdict = ledger.reserve(request("s/5", train_flops=1))
    assert verdict == Hold(
        "budget.train_gflop", "cluster budget train_gflop: asked 1, spent 0, held 100, cap 100"
    )


def test_what_others_hold_is_waited_for_and_what_is_spent_is_denied_with_the_numbers(ledger):
    grant = begun(ledger, train_flops=60 * GFLOP)
    assert isinstance(ledger.reserve(request("s/2", train_flops=50 * GFLOP)), Hold)
    ledger.settle(grant.lease, grant.fence, Usage(train_flops=60 * GFLOP, reports=5))
    assert ledger.reserve(request("s/2", train_flops=50 * GFLOP)) == Deny(
        "budget.train_gflop", "cluster budget train_gflop: asked 50, spent 60, held 0, cap 100"
    )
    assert ledger.reserve(request("s/3", train_flops=40 * GFLOP)) == Allow()


def test_a_sweeps_own_budget_binds_it_too(ledger):
    ledger.open_sweep("small", limits(sweep={"trials": 1}))
    assert ledger.reserve(request("small/1", sweep="small")) == Allow()
    assert ledger.reserve(request("small/2", sweep="small")).rule == "budget.trials"
    assert ledger.reserve(request("s/1")) == Allow()


def test_parameters_are_limited_at_a_time_only(ledger):
    ledger.open_sweep("p", limits(cluster={"concurrent_params": 150}))
    first = begun(ledger)
    assert ledger.reserve(request("s/2")).rule == "budget.concurrent_params"
    ledger.settle(first.lease, first.fence, Usage())
    assert ledger.reserve(request("s/2")) == Allow()


def test_gpu_and_wall_time_are_counted_in_milliseconds(ledger):
    ledger.open_sweep("t", limits(cluster={"gpu_seconds": 6, "wall_seconds": 120}))
    assert ledger.reserve(request("s/1")) == Allow()
    assert ledger.reserve(request("s/2", gpu_ms=1)).rule == "budget.gpu_ms"
    assert ledger.reserve(request("s/3", gpu_ms=0)) == Allow()
    assert ledger.reserve(request("s/4", gpu_ms=0)).rule == "budget.wall_ms"


def test_a_budget_of_zero_admits_nothing_and_is_used_up(ledger):
    ledger.open_sweep("z", limits(sweep={"trials": 0}))
    assert isinstance(ledger.reserve(request("z/1", sweep="z")), Deny)
    budget = next(b for b in ledger.budgets("z") if (b.scope, b.resource) == ("sweep:z", "trials"))
    assert (budget.share, budget.limited) == (1.0, True)


def test_a_budget_tells_its_share_and_whether_it_is_limited(ledger):
    ledger.reserve(request())
    shares = {b.resource: (b.share, b.limited) for b in ledger.budgets("s") if b.scope == "cluster"}
    assert shares["trials"] == (0.1, True)
    assert not shares["wall_ms"][1]


def test_an_unknown_sweep_is_told(ledger):
    for ask in (ledger.sweep, ledger.pulse, lambda name: ledger.reserve(request("x/1", sweep=name))):
        with pytest.raises(LedgerError, match="sweep x: not in the ledger"):
            ask("x")
    with pytest.raises(LedgerError, match="not in the ledger"):
        ledger.freeze("x", "why")
    with pytest.raises(LedgerError, match="not in the ledger"):
        ledger.close_sweep("x", {})


# --- I1: the database itself refuses


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE budgets SET held = 101 WHERE scope = 'cluster' AND resource = 'train_gflop'",
        "UPDATE budgets SET spent = cap, held = 1 WHERE scope = 'cluster' AND resource = 'train_gflop'",
        "UPDATE budgets SET target = cap + 1 WHERE scope = 'cluster' AND resource = 'train_gflop'",
        "UPDATE budgets SET held = -1 WHERE resource = 'trials'",
        "UPDATE budgets SET spent = -1 WHERE resource = 'trials'",
        "UPDATE budgets SET overrun = -1 WHERE resource = 'trials'",
        "UPDATE budgets SET spent = 9223372036854775807 + 1 WHERE resource = 'trials'",
        "UPDATE leases SET state = 'anything'",
        "UPDATE sweeps SET state = 'anything'",
        "INSERT INTO leases SELECT id + 1, key, trial, digest, sweep, claim, state, fence, holder,"
        " deadline_ms, began_ms, boot, rule, reason, trials, credit, told, used FROM leases",
    ],
)
def test_the_database_refuses_what_breaks_an_invariant_whoever_writes_it(ledger, url, change):
    ledger.reserve(request())
    with (
        raw(url) as database,
        pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError, psycopg.DataError)),
    ):
        database.execute(change)


@pytest.mark.sqlite
def test_sqlite_takes_no_fraction_for_an_integer(ledger, url):
    with raw(url) as database, pytest.raises(sqlite3.IntegrityError):
        database.execute("UPDATE budgets SET spent = 1.5 WHERE resource = 'trials'")


def test_a_reservation_that_the_arithmetic_lets_through_is_stopped_by_the_database(ledger, monkeypatch):
    monkeypatch.setattr("safety.budgets.room", lambda *_: Allow())
    with pytest.raises(LedgerError, match="within_cap"):
        ledger.reserve(request(train_flops=101 * GFLOP))
    assert ledger.lease("s/1") is None
    assert amounts(ledger, "train_gflop") == (0, 0, 0)


# --- I3: one lease per key


def test_the_same_request_again_has_the_same_lease(ledger):
    ledger.reserve(request())
    first = ledger.lease("s/1")
    assert ledger.reserve(request()) == Allow()
    assert ledger.lease("s/1") == first
    assert amounts(ledger, "trials") == (1, 0, 0)
    assert kinds(ledger).count("reserve") == 1


@pytest.mark.parametrize("changed", [{"digest": "d2"}, {"params": 101}, {"sweep": "other"}])
def test_a_key_with_another_request_is_an_error_and_changes_nothing(ledger, changed):
    ledger.open_sweep("other", limits())
    ledger.reserve(request())
    before = ledger.lease("s/1"), ledger.budgets("s"), kinds(ledger)
    with pytest.raises(KeyReused, match="s/1: this key was used for another request"):
        ledger.reserve(request(**changed))
    with pytest.raises(KeyReused):
        ledger.deny(request(**changed), Deny("rule", "reason"))
    assert (ledger.lease("s/1"), ledger.budgets("s"), kinds(ledger)) == before


def test_a_request_whose_lease_has_ended_is_denied(ledger):
    ledger.reserve(request())
    ledger.void("s/1", "not needed")
    assert ledger.reserve(request()) == Deny("ended", "s/1: its lease is void already")


# --- activate, renew


def test_a_lease_begins_with_a_fence_and_a_full_term(ledger, clock):
    grant = begun(ledger)
    assert (grant.fence, grant.ttl_ms, grant.claim) == (1, LEASE_MS, claim())
    lease = ledger.lease("s/1")
    assert (lease.state, lease.holder) == ("active", "w1")
    assert lease.deadline_ms == clock.monotonic + LEASE_MS
    assert lease.began_ms == clock.monotonic


def test_activating_again_by_the_same_holder_is_a_renewal(ledger, clock):
    first = begun(ledger)
    clock.pass_ms(10_000)
    assert ledger.activate("s/1", "d1", "w1") == first
    # the holder counts a full term from now, so the ledger must too
    assert ledger.lease("s/1").deadline_ms == clock.monotonic + LEASE_MS
    assert kinds(ledger).count("activate") == 1


def test_activating_again_after_the_deadline_is_refused(ledger, clock):
    begun(ledger)
    clock.pass_ms(LEASE_MS + 1)
    with pytest.raises(LeaseLost, match="expired"):
        ledger.activate("s/1", "d1", "w1")


def test_only_who_shows_the_reserved_digest_and_comes_first_is_activated(ledger):
    with pytest.raises(LeaseLost, match="s/1: nothing was reserved"):
        ledger.activate("s/1", "d1", "w1")
    ledger.reserve(request())
    with pytest.raises(LeaseLost, match="nothing was reserved for this candidate"):
        ledger.activate("s/1", "d2", "w1")
    ledger.activate("s/1", "d1", "w1")
    with pytest.raises(LeaseLost, match="the lease is active already"):
        ledger.activate("s/1", "d1", "w2")
    assert ledger.lease("s/1").holder == "w1"


def test_a_renewal_is_a_full_term_from_now_up_to_the_last_millisecond(ledger, clock):
    grant = begun(ledger)
    clock.pass_ms(LEASE_MS)
    assert ledger.renew(grant.lease, grant.fence) == LEASE_MS
    clock.pass_ms(LEASE_MS + 1)
    with pytest.raises(LeaseLost, match="expired before it was renewed"):
        ledger.renew(grant.lease, grant.fence)


def test_the_limits_say_how_long_a_lease_lasts(ledger):
    ledger.open_sweep("quick", limits(lease_seconds=2))
    assert begun(ledger, "quick/1", sweep="quick").ttl_ms == 2_000


@pytest.mark.parametrize("fence", [0, 2, 2**70, -1])
def test_a_stale_fence_changes_nothing(ledger, fence):
    grant = begun(ledger)
    before = ledger.lease("s/1"), ledger.budgets("s"), kinds(ledger)
    with pytest.raises(LeaseLost, match="stale"):
        ledger.renew(grant.lease, fence)
    with pytest.raises(LeaseLost, match="stale"):
        ledger.settle(grant.lease, fence, USED)
    assert (ledger.lease("s/1"), ledger.budgets("s"), kinds(ledger)) == before


def test_a_lease_that_does_not_exist_is_stale(ledger):
    with pytest.raises(LeaseLost, match="stale"):
        ledger.renew(77, 1)


def test_a_number_beyond_64_bits_is_an_error_of_the_ledger(ledger):
    with pytest.raises(LedgerError, match=r"too large|out of range"):
        ledger.renew(2**70, 1)


def test_a_text_that_is_no_unicode_is_an_error_of_the_ledger(ledger):
    with pytest.raises(LedgerError, match="surrogates"):
        ledger.freeze("s", "\ud800")
    assert ledger.sweep("s").state == "open"


# --- settle, void, revoke


def test_settling_spends_what_was_used_and_gives_the_rest_back(ledger):
    grant = begun(ledger)
    ledger.settle(grant.lease, grant.fence, USED)
    assert amounts(ledger, "train_gflop") == (0, 2, 0)
    assert amounts(ledger, "wall_ms") == (0, 7_000, 0)
    assert amounts(ledger, "gpu_ms") == (0, 700, 0)
    assert amounts(ledger, "trials") == (0, 1, 0)
    assert amounts(ledger, "concurrent_params") == (0, 0, 0)
    assert ledger.lease("s/1").state == "settled"


def test_settling_twice_is_once(ledger):
    grant = begun(ledger)
    ledger.settle(grant.lease, grant.fence, USED)
    before = ledger.budgets("s"), kinds(ledger)
    ledger.settle(grant.lease, grant.fence, Usage(train_flops=9 * GFLOP))
    assert (ledger.budgets("s"), kinds(ledger)) == before


@pytest.mark.parametrize("value", [-5, -(2**62), float("nan"), "1", None])
def test_a_usage_that_would_lower_what_is_spent_is_charged_whole(ledger, value):
    grant = begun(ledger)
    ledger.settle(grant.lease, grant.fence, Usage(train_flops=value, wall_ms=value, gpu_ms=value))
    assert amounts(ledger, "wall_ms") == (0, 60_000, 0)
    assert amounts(ledger, "train_gflop") == (0, 10, 0)


def test_a_lease_that_never_began_can_not_be_settled(ledger):
    ledger.reserve(request())
    with pytest.raises(LeaseLost, match="the lease is reserved"):
        ledger.settle(ledger.lease("s/1").id, 0, Usage())
    assert amounts(ledger, "trials") == (1, 0, 0)


def test_use_over_the_hold_is_kept_apart_told_and_freezes_the_sweep(ledger):
    ledger.open_sweep("other", limits())
    grant = begun(ledger)
    ledger.settle(grant.lease, grant.fence, Usage(train_flops=13 * GFLOP, wall_ms=61_000, reports=5))
    assert amounts(ledger, "train_gflop") == (0, 10, 3)
    assert amounts(ledger, "wall_ms") == (0, 60_000, 1_000)
    sweep = ledger.sweep("s")
    assert sweep.state == "frozen"
    assert sweep.reason == "s/1 used 3 train_gflop, 1,000 wall_ms more than it held"
    assert kinds(ledger)[-3:] == ["settle", "incident", "freeze"]
    assert ledger.sweep("other").state == "open"


def test_overruns_add_up_and_never_beyond_64_bits(ledger):
    ledger.open_sweep("other", limits())
    for key, sweep in (("s/1", "s"), ("other/1", "other")):
        grant = begun(ledger, key, sweep=sweep)
        ledger.settle(grant.lease, grant.fence, Usage(wall_ms=2**62))
    assert amounts(ledger, "wall_ms") == (0, 120_000, 2**62)
    assert amounts(ledger, "wall_ms", "sweep:s") == (0, 60_000, 2**62 - 60_000)


def test_a_void_gives_everything_back_and_keeps_its_reason(ledger):
    ledger.reserve(request())
    ledger.void("s/1", "not needed")
    assert amounts(ledger, "trials") == (0, 0, 0)
    assert ledger.lease("s/1").reason == "not needed"
    _, entry, _ = ledger.audit()[-1]
    assert (entry.kind, entry.key) == ("void", "s/1")
    assert "not needed" in entry.detail
    with pytest.raises(LeaseLost, match="the lease is void already"):
        ledger.activate("s/1", "d1", "w1")


def test_a_lease_that_began_is_not_voided(ledger):
    begun(ledger)
    ledger.void("s/1", "too late")
    assert ledger.lease("s/1").state == "active"
    ledger.void("s/none", "nothing there")


def test_a_revoked_lease_is_not_renewed_and_keeps_its_hold_until_it_is_settled(ledger):
    grant = begun(ledger)
    ledger.revoke("s/1", "kill", "a human said so")
    with pytest.raises(LeaseLost, match="the lease is revoked: a human said so"):
        ledger.renew(grant.lease, grant.fence)
    with pytest.raises(LeaseLost, match="revoked already"):
        ledger.activate("s/1", "d1", "w1")
    assert amounts(ledger, "train_gflop") == (10, 0, 0)
    ledger.settle(grant.lease, grant.fence, USED)
    assert amounts(ledger, "train_gflop") == (0, 2, 0)
    assert "revoke" in kinds(ledger)


def test_a_reserved_lease_that_is_revoked_is_void(ledger):
    ledger.reserve(request())
    ledger.revoke("s/1", "kill", "why")
    lease = ledger.lease("s/1")
    assert (lease.state, lease.rule, lease.reason) == ("void", "kill", "why")
    ledger.revoke("s/none", "kill", "nothing there")


# --- I4: terminal states


def ended(ledger, clock, state):
    grant = begun(ledger)
    if state == "settled":
        ledger.settle(grant.lease, grant.fence, USED)
    elif state == "forfeited":
        clock.pass_ms(LEASE_MS + GRACE_MS + 1)
        ledger.reap()
    return grant


@pytest.mark.parametrize("state", ["settled", "forfeited"])
def test_what_has_ended_stays_as_it_is(ledger, clock, state):
    grant = ended(ledger, clock, state)
    before = ledger.lease("s/1"), ledger.budgets("s")
    assert before[0].state == state
    for fence in (grant.fence, before[0].fence):
        with pytest.raises(LeaseLost):
            ledger.renew(grant.lease, fence)
    with pytest.raises(LeaseLost):
        ledger.activate("s/1", "d1", "w1")
    if state == "forfeited":
        for fence in (grant.fence, before[0].fence):
            with pytest.raises(LeaseLost):
                ledger.settle(grant.lease, fence, Usage())
    ledger.void("s/1", "x")
    ledger.revoke("s/1", "x", "x")
    ledger.reap()
    ledger.close_sweep("s", {})
    assert (ledger.lease("s/1"), ledger.budgets("s")) == before


# --- reap


def test_a_reservation_whose_driver_is_silent_is_voided_and_not_before(ledger, clock):
    ledger.reserve(request())
    clock.pass_ms(SWEEP_SILENCE_MS)
    assert ledger.reap() == 0
    clock.pass_ms(1)
    assert ledger.reap() == 1
    assert ledger.lease("s/1").state == "void"
    assert amounts(ledger, "trials") == (0, 0, 0)


def test_a_pulse_keeps_reservations(ledger, clock):
    ledger.reserve(request())
    clock.pass_ms(SWEEP_SILENCE_MS)
    assert ledger.pulse("s") == "open"
    clock.pass_ms(SWEEP_SILENCE_MS)
    assert ledger.reap() == 0


def test_a_silent_lease_is_spent_whole_after_deadline_and_grace_and_not_before(ledger, clock):
    grant = begun(ledger)
    clock.pass_ms(LEASE_MS + GRACE_MS)
    assert ledger.reap() == 0
    assert amounts(ledger, "train_gflop") == (10, 0, 0)
    clock.pass_ms(1)
    assert ledger.reap() == 1
    assert amounts(ledger, "train_gflop") == (0, 10, 0)
    assert amounts(ledger, "wall_ms") == (0, 60_000, 0)
    assert amounts(ledger, "concurrent_params") == (0, 0, 0)
    lease = ledger.lease("s/1")
    assert (lease.state, lease.fence) == ("forfeited", grant.fence + 1)


def test_a_revoked_lease_that_nobody_settles_is_spent_whole_too(ledger, clock):
    begun(ledger)
    ledger.revoke("s/1", "kill", "why")
    clock.pass_ms(LEASE_MS + GRACE_MS + 1)
    assert ledger.reap() == 1
    assert amounts(ledger, "train_gflop") == (0, 10, 0)


def test_a_silent_lease_that_told_more_than_it_held_is_spent_as_it_told_and_freezes_the_sweep(ledger, clock):
    begun(ledger)
    ledger.hear(ledger.lease("s/1"), Usage(train_flops=13 * GFLOP, wall_ms=1, reports=1))
    clock.pass_ms(LEASE_MS + GRACE_MS + 1)
    assert ledger.reap() == 1
    assert amounts(ledger, "train_gflop") == (0, 10, 3)
    assert amounts(ledger, "wall_ms") == (0, 60_000, 0)
    assert ledger.sweep("s").reason == "s/1 used 3 train_gflop more than it held"
    assert kinds(ledger)[-3:] == ["forfeit", "incident", "freeze"]


def test_a_renewed_lease_is_not_reaped(ledger, clock):
    grant = begun(ledger)
    clock.pass_ms(LEASE_MS)
    ledger.renew(grant.lease, grant.fence)
    clock.pass_ms(LEASE_MS + GRACE_MS)
    assert ledger.reap() == 0


def test_after_a_restart_of_the_host_a_lease_has_a_full_term_by_the_new_clock(ledger, url, clock):
    begun(ledger)
    again = Ledger(url, clock.restart())
    again.pulse("s")
    assert again.reap() == 0
    clock.pass_ms(LEASE_MS + GRACE_MS)
    assert again.reap() == 0
    clock.pass_ms(1)
    assert again.reap() == 1
    assert amounts(again, "train_gflop") == (0, 10, 0)


def test_after_a_restart_of_the_host_a_holder_that_lives_may_renew(ledger, url, clock):
    grant = begun(ledger)
    again = Ledger(url, clock.restart())
    assert again.renew(grant.lease, grant.fence) == LEASE_MS
    assert again.lease("s/1").deadline_ms == clock.monotonic + LEASE_MS


def test_after_a_restart_of_the_host_reservations_of_silent_drivers_are_void(ledger, url, clock):
    ledger.reserve(request())
    again = Ledger(url, clock.restart())
    assert again.reap() == 1
    assert again.lease("s/1").state == "void"


@pytest.mark.parametrize("days", [1, -1])
def test_a_jump_of_the_wall_clock_changes_no_lease(ledger, clock, days):
    grant = begun(ledger)
    ledger.reserve(request("s/2"))
    before = ledger.lease("s/1"), ledger.lease("s/2")
    clock.wall += days * 86_400_000
    assert ledger.reap() == 0
    assert (ledger.lease("s/1"), ledger.lease("s/2")) == before
    assert ledger.renew(grant.lease, grant.fence) == LEASE_MS


# --- sweeps


def test_a_frozen_sweep_admits_begins_and_renews_nothing(ledger):
    grant = begun(ledger)
    ledger.reserve(request("s/2"))
    ledger.freeze("s", "kill switch")
    denial = Deny("frozen", "sweep s is frozen: kill switch")
    assert ledger.reserve(request("s/3")) == denial
    assert ledger.reserve(request("s/2")) == denial
    with pytest.raises(LeaseLost, match="sweep s is frozen: kill switch"):
        ledger.activate("s/2", "d1", "w2")
    with pytest.raises(LeaseLost, match="sweep s is frozen: kill switch"):
        ledger.activate("s/1", "d1", "w1")
    with pytest.raises(LeaseLost, match="sweep s is frozen: kill switch"):
        ledger.renew(grant.lease, grant.fence)
    assert ledger.lease("s/2").state == "reserved"
    assert ledger.pulse("s") == "frozen"


def test_freezing_is_for_good_and_twice_is_once(ledger, url, clock):
    ledger.freeze("s", "first")
    ledger.freeze("s", "second")
    ledger.close_sweep("s", {})
    again = Ledger(url, clock.clock())
    assert (again.sweep("s").state, again.sweep("s").reason) == ("frozen", "first")
    assert kinds(again).count("freeze") == 1
    with pytest.raises(LedgerError, match="sweep s: frozen: first"):
        again.open_sweep("s", ledger.sweep("s").limits)


def test_the_leases_of_a_frozen_sweep_can_be_settled(ledger):
    grant = begun(ledger)
    ledger.freeze("s", "kill switch")
    ledger.settle(grant.lease, grant.fence, USED)
    assert amounts(ledger, "train_gflop") == (0, 2, 0)


def test_closing_a_sweep_voids_what_never_began_and_charges_the_rest_to_its_next_report(ledger, clock):
    begun(ledger)
    begun(ledger, "s/2")
    ledger.reserve(request("s/3"))
    clock.pass_ms(9_000)
    ledger.close_sweep("s", {"s/1": USED, "s/2": Usage(reports=5, gpu_ms=5_000)})
    assert ledger.lease("s/1").state == "settled"
    assert ledger.lease("s/3").state == "void"
    assert amounts(ledger, "train_gflop") == (0, 4 + 10, 0)
    assert amounts(ledger, "wall_ms") == (0, 18_000, 0)
    assert amounts(ledger, "gpu_ms") == (0, 900 + 5_000, 0)
    assert ledger.open_leases("s") == []
    assert ledger.sweep("s").state == "closed"


def test_closing_charges_no_less_than_arithmetic_and_no_more_than_was_held_of_what_nobody_told(ledger, clock):
    begun(ledger)
    begun(ledger, "s/2")
    clock.pass_ms(10**9)
    ledger.close_sweep("s", {"s/1": Usage(wall_ms=-1, reports="five"), "s/2": Usage(train_flops=-1)})
    assert amounts(ledger, "train_gflop") == (0, 20, 0)
    assert amounts(ledger, "wall_ms") == (0, 120_000, 0)
    assert amounts(ledger, "gpu_ms") == (0, 12_000, 0)
    assert ledger.sweep("s").state == "closed"


def test_closing_charges_a_trial_that_died_what_it_told_beyond_its_hold_and_freezes_the_sweep(ledger):
    begun(ledger)
    over = Usage(train_flops=13 * GFLOP, wall_ms=61_000, gpu_ms=6_500, reports=5)
    ledger.close_sweep("s", {"s/1": over})
    assert amounts(ledger, "train_gflop") == (0, 10, 3)
    assert amounts(ledger, "wall_ms") == (0, 60_000, 1_000)
    assert amounts(ledger, "gpu_ms") == (0, 6_000, 500)
    assert ledger.sweep("s").reason == "s/1 used 3 train_gflop, 500 gpu_ms, 1,000 wall_ms more than it held"
    assert kinds(ledger)[-3:] == ["settle", "incident", "freeze"]


@pytest.mark.parametrize("reaped", [False, True])
@pytest.mark.parametrize("monotonic", [5_000, 1_005_000])
def test_closing_after_a_restart_of_the_host_charges_the_whole_time(ledger, url, clock, reaped, monotonic):
    begun(ledger)
    again = Ledger(url, clock.restart(monotonic))
    if reaped:
        again.reap()
    again.close_sweep("s", {})
    assert amounts(again, "wall_ms") == (0, 60_000, 0)


def test_a_closed_sweep_admits_nothing_until_it_is_opened_again(ledger):
    ledger.close_sweep("s", {})
    assert ledger.reserve(request()) == Deny("closed", "sweep s is closed")
    ledger.close_sweep("s", {})
    assert kinds(ledger).count("close_sweep") == 1
    ledger.open_sweep("s", ledger.sweep("s").limits)
    assert ledger.reserve(request()) == Allow()


def test_a_sweep_is_closed_by_the_driver_that_opened_it_last_and_by_no_other(ledger):
    in_force = ledger.sweep("s").limits
    ledger.open_sweep("s", in_force, driver="ann's")
    begun(ledger)
    for other in ("bob's", ""):
        with pytest.raises(LedgerError, match="sweep s: opened by another driver, which alone closes it"):
            ledger.close_sweep("s", {"s/1": USED}, other)
    assert (ledger.sweep("s").state, ledger.lease("s/1").state) == ("open", "active")
    entry = ledger.audit()[-1][1]
    assert (entry.kind, entry.sweep, entry.rule) == ("deny", "s", "driver")
    # after ann's has died, another one resumes it
    ledger.open_sweep("s", in_force, driver="bob's")
    with pytest.raises(LedgerError, match="opened by another driver"):
        ledger.close_sweep("s", {}, "ann's")
    ledger.close_sweep("s", {"s/1": USED}, "bob's")
    ledger.close_sweep("s", {"s/1": USED}, "bob's")
    assert (ledger.sweep("s").state, ledger.lease("s/1").state) == ("closed", "settled")


def test_closing_leaves_the_leases_of_other_sweeps_alone(ledger):
    ledger.open_sweep("other", limits())
    begun(ledger, "other/1", sweep="other")
    ledger.reserve(request())
    ledger.close_sweep("s", {})
    assert [lease.key for lease in ledger.open_leases("other")] == ["other/1"]


def test_a_sweep_opened_twice_is_the_same_sweep(ledger):
    begun(ledger)
    ledger.open_sweep("s", ledger.sweep("s").limits)
    assert amounts(ledger, "trials") == (1, 0, 0)
    assert ledger.lease("s/1").state == "active"


def test_a_tighter_cluster_binds_every_sweep_at_once(ledger):
    ledger.reserve(request())
    ledger.open_sweep("tight", limits(cluster={"trials": 2}))
    assert ledger.reserve(request("s/2")) == Allow()
    assert ledger.reserve(request("s/3")).rule == "budget.trials"


def test_a_cluster_tightened_below_what_is_out_admits_nothing_and_keeps_its_invariant(ledger):
    for i in range(4):
        begun(ledger, f"s/{i}")
    ledger.open_sweep("tight", limits(cluster={"train_flops": 15 * GFLOP}))
    budget = next(b for b in ledger.budgets("s") if (b.scope, b.resource) == ("cluster", "train_gflop"))
    assert (budget.target, budget.cap, budget.held) == (15, 40, 40)
    assert isinstance(ledger.reserve(request("s/9", train_flops=1)), Hold)
    for i in range(4):
        lease = ledger.lease(f"s/{i}")
        ledger.settle(lease.id, lease.fence, Usage())
    assert ledger.reserve(request("s/10")) == Allow()
    assert isinstance(ledger.reserve(request("s/11")), Hold)


def test_looser_limits_of_the_cluster_are_refused_whole(ledger):
    with pytest.raises(LooserLimits, match="cluster budget trials: 11 is asked for and 10 is in force"):
        ledger.open_sweep("loose", limits(cluster={"train_flops": 5 * GFLOP, "trials": 11}))
    with pytest.raises(LedgerError, match="sweep loose: not in the ledger"):
        ledger.sweep("loose")
    assert {b.target for b in ledger.budgets("s") if b.resource == "train_gflop"} == {100, 2**62}


def test_a_sweep_that_names_no_cluster_budget_is_bound_by_the_one_in_force(ledger):
    ledger.open_sweep("free", limits())
    assert (
        ledger.reserve(request("free/1", sweep="free", train_flops=101 * GFLOP)).rule == "budget.train_gflop"
    )


def test_budgets_are_rounded_down_to_whole_gflop(ledger):
    ledger.open_sweep("r", limits(sweep={"train_flops": 3 * GFLOP - 1}))
    assert isinstance(ledger.reserve(request("r/1", sweep="r", train_flops=2 * GFLOP + 1)), Deny)
    assert ledger.reserve(request("r/2", sweep="r", train_flops=2 * GFLOP)) == Allow()


def test_a_budget_beyond_64_bits_is_as_good_as_none(ledger):
    ledger.open_sweep("huge", limits(sweep={"wall_seconds": 2**62}))
    assert ledger.reserve(request("huge/1", sweep="huge")) == Allow()


# --- I7: what is spent stays spent


def test_what_is_spent_stays_over_a_new_ledger_object_and_when_the_sweep_is_split(ledger, url, clock):
    for i in range(5):
        grant = begun(ledger, f"s/{i}")
        ledger.settle(grant.lease, grant.fence, Usage(train_flops=10 * GFLOP, reports=5))
    ledger.close_sweep("s", {})
    again = Ledger(url, clock.restart())
    for name in ("s2", "s3"):
        again.open_sweep(name, limits(cluster={"trials": 10, "train_flops": 100 * GFLOP}))
    assert amounts(again, "train_gflop") == (0, 50, 0)
    granted = sum(
        isinstance(again.reserve(request(f"{name}/{i}", sweep=name)), Allow)
        for i in range(10)
        for name in ("s2", "s3")
    )
    assert granted == 5


# --- I6: a change and its audit row stand or fall together


@pytest.fixture
def deaf(ledger, url):
    """The same ledger, whose audit takes no more rows."""

    def make():
        with raw(url) as database:
            deafen(database)
        return ledger

    return make


@pytest.mark.parametrize(
    "change",
    [
        lambda ledger, _: ledger.reserve(request("s/9")),
        lambda ledger, _: ledger.activate("s/2", "d1", "w2"),
        lambda ledger, grant: ledger.settle(grant.lease, grant.fence, USED),
        lambda ledger, grant: ledger.settle(grant.lease, grant.fence, Usage(wall_ms=10**9)),
        lambda ledger, _: ledger.void("s/2", "x"),
        lambda ledger, _: ledger.revoke("s/1", "x", "x"),
        lambda ledger, _: ledger.revoke("s/2", "x", "x"),
        lambda ledger, _: ledger.refuse("s", "s/1", Deny("x", "x")),
        lambda ledger, _: ledger.freeze("s", "x"),
        lambda ledger, _: ledger.close_sweep("s", {}),
        lambda ledger, _: ledger.open_sweep("n", limits(cluster={"trials": 3})),
    ],
)
def test_without_its_audit_row_nothing_changes(ledger, deaf, change):
    grant = begun(ledger)
    ledger.reserve(request("s/2"))

    def all_state():
        leases = [ledger.lease(key) for key in ("s/1", "s/2", "s/9")]
        return leases, ledger.budgets("s"), ledger.sweep("s"), kinds(ledger)

    before = all_state()
    deaf()
    with pytest.raises(LedgerError, match="audit is full"):
        change(ledger, grant)
    assert all_state() == before
    with pytest.raises(LedgerError):
        ledger.sweep("n")


def test_reaping_without_audit_changes_nothing(ledger, deaf, clock):
    begun(ledger)
    clock.pass_ms(LEASE_MS + GRACE_MS + 1)
    deaf()
    with pytest.raises(LedgerError, match="audit is full"):
        ledger.reap()
    assert amounts(ledger, "train_gflop") == (10, 0, 0)


# --- opening


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nonsense", "ledger nonsense: not a database URL"),
        ("nosuch://x/y", "ledger nosuch://x/y: cannot be opened"),
        ("sqlite:////proc/none/ledger.db", "ledger sqlite:////proc/none/ledger.db: cannot be opened"),
        ("oracle://me:secret@host/db", r"ledger oracle://me:\*\*\*@host/db: cannot be opened"),
        ("me:secret@host", r"ledger \(a URL that can't be parsed\): not a database URL"),
    ],
)
def test_a_database_that_can_not_be_opened_is_told_in_one_line_without_its_password(given, message):
    with pytest.raises(LedgerError, match=message) as caught:
        Ledger(given)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_database_of_a_kind_that_keeps_no_ledgers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "_SETTINGS", {"postgresql": None})
    with pytest.raises(LedgerError, match=r"ledger\.db: expected a database of postgresql$"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_a_file_that_is_no_database_is_told_and_left_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 100)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger(f"sqlite:///{path}")
    assert path.read_text().startswith("dear diary")


def test_the_folder_of_a_ledger_is_made(tmp_path):
    Ledger(f"sqlite:///{tmp_path / 'a' / 'b' / 'ledger.db'}").close()
    assert (tmp_path / "a" / "b" / "ledger.db").exists()


def test_a_ledger_in_memory_is_a_ledger():
    ledger = Ledger("sqlite://")
    ledger.open_sweep("s", limits())
    assert ledger.reserve(request()) == Allow()


def test_a_locked_database_denies_and_answers_again_when_it_is_free(ledger, url, monkeypatch, clock):
    monkeypatch.setattr("safety.database.BUSY_TIMEOUT_MS", 50)
    hasty = Ledger(url, clock.clock())
    with raw(url) as other:
        lock(other)
        with pytest.raises(LedgerError, match=r"locked|lock timeout"):
            hasty.reserve(request())
        other.execute("ROLLBACK")
    assert hasty.reserve(request()) == Allow()


@pytest.mark.sqlite
def test_the_database_is_durable_and_has_strict_tables(ledger, url):
    with raw(url) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        strict = dict(database.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'"))
        assert {name for name, is_strict in strict.items() if not is_strict} == {"sqlite_schema"}
    with ledger._transactions._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


@pytest.fixture
def reader(tmp_path):
    """Another process's connection that reads a file which is no ledger yet: WAL can't begin meanwhile."""
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN")
    other.execute("SELECT * FROM t").fetchall()
    yield other
    other.close()


def test_opening_waits_for_another_process_that_opens_the_same_file(tmp_path, reader):
    release = threading.Timer(0.1, reader.rollback)
    release.start()
    # of those that open a file at once all but one are answered "locked" without a wait
    impatient = sqlite3.connect(tmp_path / "new.db", timeout=0)
    database._write_ahead(impatient)
    assert impatient.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    impatient.close()
    release.join()


def test_a_file_that_stays_locked_is_told(tmp_path, reader, monkeypatch):
    monkeypatch.setattr("safety.database.BUSY_TIMEOUT_MS", 50)
    with pytest.raises(LedgerError, match="cannot be opened: database is locked"):
        Ledger(f"sqlite:///{tmp_path / 'new.db'}")


def test_a_database_that_can_only_be_read_is_told_at_once(tmp_path):
    sqlite3.connect(tmp_path / "old.db").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(LedgerError, match="cannot be opened: attempt to write a readonly database"):
        Ledger(f"sqlite:///file:{tmp_path / 'old.db'}?mode=ro&uri=true")


@pytest.mark.sqlite
def test_a_connection_that_was_read_from_as_all_were_opened_anew_is_closed_after_it(ledger):
    with ledger.reading() as connection:
        plain = connection.connection.driver_connection
        ledger.reconnect()
        ledger.pulse("s")
        assert connection.scalar(sa.select(schema.sweeps.c.name)) == "s"
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        plain.execute("SELECT 1")


@pytest.mark.sqlite
def test_a_connection_that_was_written_with_as_all_were_opened_anew_is_closed_after_it(ledger, monkeypatch):
    monkeypatch.setattr("safety.database.BUSY_TIMEOUT_MS", 50)

    def reconnect():
        ledger.reconnect()
        with pytest.raises(LedgerUnavailable, match="database is locked"):
            ledger.pulse("s")

    with ledger._transaction() as connection:
        plain = connection.connection.driver_connection
        other = threading.Thread(target=reconnect)
        other.start()
        other.join()
        assert connection.scalar(sa.select(schema.sweeps.c.name)) == "s"
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        plain.execute("SELECT 1")


def test_a_ledger_that_could_not_be_opened_leaves_no_connection_open(tmp_path, reader, monkeypatch):
    monkeypatch.setattr("safety.database.BUSY_TIMEOUT_MS", 50)
    made = []
    connect = sqlite3.connect
    monkeypatch.setattr(
        "sqlite3.dbapi2.connect", lambda *given, **named: made.append(connect(*given, **named)) or made[-1]
    )
    monkeypatch.setattr("safety.database._write_ahead", lambda connection: None)
    reader.rollback()
    reader.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable, match="database is locked"):
        database.open_database(f"sqlite:///{tmp_path / 'new.db'}")
    (left,) = made
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        left.execute("SELECT 1")


def test_a_ledger_of_another_version_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE leases (id INTEGER PRIMARY KEY, key TEXT) STRICT")
    connection.close()
    with pytest.raises(LedgerError, match="made by another version"):
        Ledger(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(leases)")]
    connection.close()
    assert columns == ["id", "key"]


def test_a_sweep_that_is_opened_again_gives_back_what_its_last_driver_reserved(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/l.db")
    ledger.open_sweep("s", limits(sweep={"trials": 2}))
    ledger.reserve(request("s/1"))
    ledger.reserve(request("s/2"))
    ledger.activate("s/2", "d1", "w")
    ledger.open_sweep("s", limits(sweep={"trials": 2}))
    assert amounts(ledger, "trials", "sweep:s")[0] == 1
    assert ledger.lease("s/1").state == "void"
    assert ledger.lease("s/2").state == "active"
    ledger.close()
