"""Emergency shutdowns and rollbacks in the ledger."""

import json
from dataclasses import replace

import pytest

from safety import (
    Allow,
    ApprovalMissing,
    ApprovalRefused,
    Champion,
    Deny,
    Governor,
    Hold,
    LeaseLost,
    Ledger,
    LedgerError,
    Usage,
    audit,
    sweeps,
)
from safety.approval import decide
from safety.emergency import STEPS, pending
from tests.safety import racers
from tests.safety.approvers import answer, approval, identity
from tests.safety.databases import deafen, raw
from tests.safety.fakes import kinds, request
from tests.safety.fakes import limits as limits_of
from tests.safety.test_races import run_all

TWO = approval("ann", "bob", "eve", quorum=2)


def limits(**more):
    """Limits under which no human approves a champion, and one may gain much."""
    return limits_of(require_approval=False, max_improvement_rate=10.0, **more)


@pytest.fixture
def family(ledger):
    """Two sweeps of the lineage `family`, whose release takes two of three."""
    for name in ("x", "y"):
        ledger.open_sweep(name, limits(approval=TWO), "family")
    return ledger


def champion(number, parent=""):
    return Champion(artifact=f"a{number}", parent=parent, generation=number, evidence="e", train_gflop=1)


def promote(ledger, number, old, new, parent="", sweep="x"):
    return ledger.promote(sweep, f"p{number}", old, new, champion=champion(number, parent))


def two(ledger):
    """Champions a1 and a2, each of which gained more than half again."""
    assert promote(ledger, 1, 0.5, 0.505) == Allow()
    assert promote(ledger, 2, 0.505, 0.515, "a1") == Allow()


def runaway(ledger):
    """The lineage is shut down by its third champion; its incident."""
    two(ledger)
    assert promote(ledger, 3, 0.515, 0.535, "a2").rule == "runaway"
    return ledger.standing_incident("family")


def completed(ledger, number):
    """All that a shutdown does by itself."""
    ledger.revoke_leases(number, "loop")
    ledger.take_step(number, "saved", "loop", "folder")
    ledger.take_step(number, "reverted", "loop", ledger.revert(number, "loop"))
    return ledger.take_step(number, "alerted", "loop", "webhook")


def approve(ledger, who=("ann", "bob")):
    name = ledger.requests()[-1][0].request.digest
    for one in who:
        answer(ledger, name, one)


def released(ledger, number):
    ledger.acknowledge(number, "seen", "dan")
    with pytest.raises(ApprovalMissing):
        ledger.release(number, "understood", "dan")
    approve(ledger)
    assert ledger.release(number, "understood", "dan")


def last(ledger, kind):
    entry = next(entry for _, entry, _ in reversed(ledger.audit()) if entry.kind == kind)
    return json.loads(entry.detail)


# --- frozen


def test_a_runaway_freezes_its_lineage_and_says_who_why_and_which_version_is_safe(family, clock):
    found = runaway(family)
    assert (found.lineage, found.sweep, found.rule, found.by) == ("family", "x", "runaway", "the limits")
    assert found.reason.startswith("lineage family gained 0.005, 0.01, 0.02")
    assert (found.safe, found.at_ms, pending(found)) == ("a1", clock.wall, STEPS[1:])
    assert family.incidents() == [found] == [family.incident(found.number)]
    detail = last(family, "shut_down")
    assert (detail["lineage"], detail["safe"], detail["by"]) == ("family", "a1", "the limits")


def test_nothing_of_a_frozen_lineage_is_admitted_begun_renewed_promoted_or_opened(family):
    for key in ("y/1", "y/2"):
        assert family.reserve(request(key, sweep="y")) == Allow()
    grant = family.activate("y/1", "d1", "w1")
    two(family)
    family.shut_down("family", "fire", "ann")
    assert family.reserve(request("x/9", sweep="x")) == Deny("frozen", "sweep x is frozen: fire")
    assert family.readmit(request("x/9", sweep="x")) == Deny("frozen", "sweep x is frozen: fire")
    for lost in (lambda: family.activate("y/2", "d1", "w2"), lambda: family.renew(grant.lease, grant.fence)):
        with pytest.raises(LeaseLost, match="frozen: fire"):
            lost()
    assert promote(family, 3, 0.515, 0.516, "a2") == Deny("frozen", "sweep x is frozen: fire")
    with pytest.raises(LedgerError, match=r"sweep z: its lineage family was shut down: fire; nothing of it "):
        family.open_sweep("z", limits(), "family")
    assert family.reserve(request("s/1")) == Allow()  # of another lineage


def test_a_shutdown_that_comes_again_is_the_same_one(family):
    first = family.shut_down("family", "fire", "ann")
    rows = len(family.audit())
    assert family.shut_down("x", "flood", "bob") == first
    assert len(family.audit()) == rows
    with pytest.raises(LedgerError, match="lineage 'nobody': not in the ledger"):
        family.shut_down("nobody", "fire", "ann")
    assert family.standing_incident("nobody") is None


@pytest.mark.processes
def test_two_who_shut_down_at_once_make_one_incident(family, url):
    assert run_all(racers.shut_down, [(url, "family")] * 4) == [1] * 4
    assert kinds(family).count("shut_down") == 1
    assert audit.verify(family.audit()) is None


def test_a_shutdown_whose_audit_row_can_not_be_written_has_not_happened(family, url):
    with raw(url) as database:
        deafen(database)
        with pytest.raises(LedgerError, match="audit is full"):
            family.shut_down("family", "fire", "ann")
    assert family.incidents() == []
    assert family.sweep("x").state == "open"


@pytest.fixture
def unreadable(family, url):
    """The same lineage, all of whose limits were spoilt behind the ledger's back."""
    two(family)
    family.reserve(request("y/1", sweep="y"))
    with raw(url) as database:
        database.execute("UPDATE policies SET limits = 'x'")
    sweeps._in_force.cache_clear()
    return family


def test_limits_that_can_not_be_read_keep_no_lineage_from_being_shut_down_and_reverted(unreadable):
    found = unreadable.shut_down("family", "fire", "ann")
    assert found.safe == "a1"
    assert unreadable.revoke_leases(found.number, "loop").step("revoked").told == "1 leases"
    assert unreadable.leases_left(found.number) == 0
    completed(unreadable, found.number)
    assert unreadable.current_champion("family") == champion(1)


def test_where_the_limits_could_not_be_read_at_the_shutdown_nobody_releases_by_those_that_come_back(
    unreadable, url
):
    number = unreadable.shut_down("family", "fire", "ann").number
    completed(unreadable, number)
    unreadable.acknowledge(number, "seen", "dan")
    with pytest.raises(ValueError, match="Invalid JSON"):
        unreadable.release(number, "understood", "dan")
    with raw(url) as database:
        database.execute("UPDATE policies SET limits = '" + limits(approval=TWO).canonical + "'")
    with pytest.raises(ApprovalMissing):
        unreadable.release(number, "understood", "dan")
    with pytest.raises(ApprovalRefused, match="is no approver by the limits in force"):
        approve(unreadable, ["ann"])
    assert unreadable.standing_incident("family").number == number


# --- its steps


def test_each_step_is_taken_once_with_its_row_of_the_audit(family):
    number = runaway(family).number
    for _ in range(2):
        found = completed(family, number)
        family.acknowledge(number, "seen", "dan")
    assert pending(family.incident(number)) == ("released",)
    steps = ("revoked", "saved", "reverted", "alerted")
    assert [kinds(family).count(kind) for kind in (*(f"shut_down_{s}" for s in steps), "rollback")] == [1] * 5
    assert kinds(family).count("acknowledge") == 1
    assert [found.step(step).told for step in steps] == ["0 leases", "folder", "a1", "webhook"]
    assert audit.verify(family.audit()) is None


def test_a_lineage_that_was_taken_back_further_meanwhile_stays_there(family):
    number = runaway(family).number
    family.rollback("family", "", "all of them", "dan")
    completed(family, number)
    assert family.current_champion("family") is None


def test_a_shutdown_that_is_over_takes_no_later_champion_back(family):
    number = runaway(family).number
    completed(family, number)
    released(family, number)
    assert promote(family, 3, 0.505, 0.506, "a1") == Allow()
    assert completed(family, number).is_released
    assert family.current_champion("family") == champion(3, "a1")


def test_steps_go_on_after_a_restart(family, url, clock):
    number = runaway(family).number
    family.revoke_leases(number, "loop")
    family.close()
    again = Ledger(url, clock.restart())
    assert pending(again.incident(number)) == STEPS[2:]
    assert again.standing_incident("family").number == number
    completed(again, number)
    assert again.current_champion("family") == champion(1)
    again.close()


def test_nothing_is_saved_before_it_is_revoked_nor_reverted_before_it_is_saved(family):
    number = runaway(family).number
    with pytest.raises(LedgerError, match="incident 1: it can't be saved before it is revoked"):
        family.take_step(number, "saved", "loop")
    family.revoke_leases(number, "loop")
    with pytest.raises(LedgerError, match="incident 1: it can't be reverted before it is saved"):
        family.revert(number, "loop")
    family.take_step(number, "saved", "loop")
    with pytest.raises(LedgerError, match="incident 1: its lineage isn't at its safe champion"):
        family.take_step(number, "reverted", "loop")
    assert family.current_champion("family") == champion(2, "a1")
    for step in ("released", "acknowledged", "revoked", "frozen"):
        with pytest.raises(LedgerError, match="expected saved, reverted or alerted"):
            family.take_step(number, step, "loop")
    with pytest.raises(LedgerError, match="incident 9: not in the ledger"):
        family.incident(9)


def test_leases_of_the_lineage_are_revoked_and_counted_until_they_are_over(family, clock):
    for key in ("y/1", "y/2"):
        family.reserve(request(key, sweep="y"))
    grant = family.activate("y/1", "d1", "w1")
    family.reserve(request("s/1"))
    number = family.shut_down("family", "fire", "ann").number
    assert family.leases_left(number) == 2
    family.revoke_leases(number, "loop")
    assert [family.lease(key).state for key in ("y/1", "y/2", "s/1")] == ["revoked", "void", "reserved"]
    assert family.lease("y/1").rule == "shut_down"
    assert family.leases_left(number) == 1
    clock.pass_ms(20_001)
    assert family.leases_left(number) == 0
    with pytest.raises(LeaseLost):
        family.settle(grant.lease, grant.fence, Usage())


def test_an_alert_that_nobody_takes_keeps_nobody_from_acknowledging(family):
    number = runaway(family).number
    assert family.acknowledge(number, "seen", "dan")
    assert family.incident(number).is_acknowledged
    assert last(family, "acknowledge")["told"] == "seen"
    assert not family.acknowledge(number, "seen again", "eve")


# --- released


def test_a_lineage_is_released_by_the_quorum_after_somebody_has_acknowledged_it(family):
    number = runaway(family).number
    completed(family, number)
    with pytest.raises(LedgerError, match="it can't be released before it is acknowledged"):
        family.release(number, "understood", "dan")
    family.acknowledge(number, "seen", "dan")
    with pytest.raises(ApprovalMissing, match=r"release: request .* needs 2 approvals"):
        family.release(number, "understood", "dan")
    approve(family, ["ann"])
    with pytest.raises(ApprovalMissing):
        family.release(number, "understood", "dan")
    assert family.sweep("x").state == "frozen"
    approve(family, ["bob"])
    assert family.release(number, "understood", "dan")
    assert not family.release(number, "understood", "dan")
    assert family.standing_incident("family") is None
    assert [family.sweep(name).state for name in ("x", "y")] == ["closed", "closed"]
    family.open_sweep("x", limits(approval=TWO), "family")
    assert family.reserve(request("x/9", sweep="x")) == Allow()
    assert (last(family, "release")["told"], len(last(family, "release")["request"])) == ("understood", 64)


def test_after_its_release_a_lineage_promotes_from_the_safe_version_and_is_not_shut_down_again(family):
    number = runaway(family).number
    completed(family, number)
    released(family, number)
    assert family.current_champion("family") == champion(1)
    assert promote(family, 3, 0.505, 0.535, "a2") == Deny(
        "approval.parent", "a3 would follow a2, and lineage family is at a1"
    )
    assert promote(family, 3, 0.505, 0.545, "a1") == Allow()
    assert family.standing_incident("family") is None
    assert [(one.key, one.rolled_back, one.cleared) for one in family.promotions("family")] == [
        ("p1", False, True),
        ("p2", True, True),
        ("p3", False, False),
    ]


def test_a_lineage_that_runs_away_after_its_release_is_shut_down_again(family):
    released(family, completed(family, runaway(family).number).number)
    for number, (old, new) in enumerate([(0.505, 0.506), (0.506, 0.508)], start=3):
        assert promote(family, number, old, new, "a1" if number == 3 else "a3") == Allow()
    assert promote(family, 5, 0.508, 0.512, "a4").rule == "runaway"
    second = family.standing_incident("family")
    assert (second.number, second.safe) == (2, "a3")
    assert second.digest != family.incident(1).digest


def test_where_no_approvers_are_named_whoever_has_the_ledger_releases(ledger):
    ledger.open_sweep("x", limits(), "family")
    number = ledger.shut_down("family", "fire", "ann").number
    completed(ledger, number)
    ledger.acknowledge(number, "seen", "ann")
    assert ledger.release(number, "out", "ann")
    assert "request" not in last(ledger, "release")


def test_whoever_guards_a_lineage_as_it_is_shut_down_guards_it_after_the_limits_are_loosened(ledger):
    ledger.tighten(limits(approval=TWO), "ann")
    ledger.open_sweep("x", limits(), "family")
    number = ledger.shut_down("family", "fire", "ann").number
    completed(ledger, number)
    ledger.acknowledge(number, "seen", "dan")
    looser = limits(approval=approval("ann", "bob", "eve", quorum=1))
    with pytest.raises(ApprovalMissing):
        ledger.loosen(looser, "dan")
    approve(ledger)
    ledger.loosen(looser, "dan")
    assert ledger.approval("x").quorum == 1
    with pytest.raises(ApprovalMissing):
        ledger.release(number, "understood", "dan")
    approve(ledger, ["ann"])
    with pytest.raises(ApprovalMissing, match="needs 2 approvals, and was approved by ann"):
        ledger.release(number, "understood", "dan")


@pytest.mark.parametrize("spoilt", ["rejected", "expired"])
def test_a_rejected_or_expired_approval_releases_nothing(family, clock, spoilt):
    number = runaway(family).number
    completed(family, number)
    family.acknowledge(number, "seen", "dan")
    with pytest.raises(ApprovalMissing):
        family.release(number, "understood", "dan")
    approve(family)
    if spoilt == "rejected":
        name = family.requests()[-1][0].request.digest
        family.decide(decide(name, "reject", "eve", "not yet", identity("eve")))
    else:
        clock.wall += 25 * 3_600_000
    clock.wall += 1
    with pytest.raises(ApprovalMissing, match="needs 2 approvals, and was approved by nobody"):
        family.release(number, "understood", "dan")
    assert family.sweep("x").state == "frozen"


def test_an_approval_releases_one_shutdown_and_no_later_one(family):
    released(family, completed(family, runaway(family).number).number)
    number = family.shut_down("family", "again", "ann").number
    completed(family, number)
    family.acknowledge(number, "seen", "dan")
    with pytest.raises(ApprovalMissing, match="approved by nobody"):
        family.release(number, "understood", "dan")


def test_a_sweep_that_was_frozen_for_a_reason_of_its_own_stays_frozen_after_the_release(family):
    family.freeze("x", "overrun")
    number = family.shut_down("family", "fire", "ann").number
    family.freeze("y", "meanwhile")
    completed(family, number)
    released(family, number)
    assert [(family.sweep(n).state, family.sweep(n).reason) for n in ("x", "y")] == [
        ("frozen", "overrun"),
        ("frozen", "meanwhile"),
    ]
    family.open_sweep("z", limits(approval=TWO), "family")


def test_excess_that_shut_a_lineage_down_does_not_shut_it_down_again_by_what_was_taken_back(ledger):
    ledger.open_sweep("x", limits_of(require_approval=False, on_excess="shutdown"), "family")
    assert promote(ledger, 1, 1.0, 1.06) == Allow()
    assert isinstance(promote(ledger, 2, 1.06, 1.15, "a1"), Deny)
    number = ledger.standing_incident("family").number
    completed(ledger, number)
    ledger.acknowledge(number, "seen", "ann")
    ledger.release(number, "out", "ann")
    assert ledger.current_champion("family") is None
    assert promote(ledger, 2, 1.0, 1.06) == Allow()
    # what stands counts on: a release makes no room for that
    assert isinstance(promote(ledger, 3, 1.06, 1.12, "a2"), Deny)


# --- rolled back


def test_an_operator_goes_back_to_an_earlier_champion_of_a_lineage_frozen_or_not(family):
    two(family)
    assert promote(family, 3, 0.515, 0.516, "a2") == Allow()
    assert family.rollback("family", "a2", "worse in use", "dan")
    assert not family.rollback("family", "a2", "worse in use", "dan")
    assert last(family, "rollback") == {
        "lineage": "family", "from": "a3", "to": "a2", "undone": ["p3"], "reason": "worse in use",
        "by": "dan",
    }  # fmt: skip
    family.shut_down("family", "fire", "ann")
    assert family.rollback("x", "", "all of them", "dan")
    assert family.current_champion("family") is None
    assert [one.rolled_back for one in family.promotions("family")] == [True, True, True]
    assert kinds(family).count("rollback") == 2


def test_a_lineage_goes_back_only_and_to_no_champion_that_was_rolled_back(family):
    two(family)
    family.rollback("family", "a1", "worse in use", "dan")
    for artifact in ("a2", "other"):
        with pytest.raises(
            LedgerError, match=f"lineage family: {artifact} is none of the champions that led"
        ):
            family.rollback("family", artifact, "better after all", "dan")
    with pytest.raises(LedgerError, match="lineage 'nobody': not in the ledger"):
        family.rollback("nobody", "", "why", "dan")


def test_a_champion_after_a_rollback_follows_where_it_went_back_to_and_generations_go_on_rising(family):
    two(family)
    family.rollback("family", "a1", "worse in use", "dan")
    assert promote(family, 3, 0.505, 0.506, "a2").rule == "approval.parent"
    again = replace(champion(2, "a1"), artifact="b2")
    assert family.promote("x", "p3", 0.505, 0.506, champion=again).rule == "approval.generation"
    assert promote(family, 3, 0.505, 0.506, "a1") == Allow()
    assert family.current_champion("family") == champion(3, "a1")


def test_what_is_rolled_back_counts_as_a_generation_and_in_the_window(ledger):
    ledger.open_sweep("x", limits_of(require_approval=False, max_generations=2), "family")
    assert promote(ledger, 1, 1.0, 1.06) == Allow()
    ledger.rollback("family", "", "no", "dan")
    assert isinstance(promote(ledger, 2, 1.0, 1.06), Hold)
    assert promote(ledger, 2, 1.0, 1.01) == Allow()
    ledger.rollback("family", "", "no", "dan")
    assert promote(ledger, 3, 1.0, 1.001).rule == "max_generations"


def test_a_rollback_hides_no_acceleration(family):
    assert promote(family, 1, 0.5, 0.505) == Allow()
    assert promote(family, 2, 0.505, 0.515, "a1") == Allow()
    family.rollback("family", "a1", "no", "dan")
    assert promote(family, 3, 0.505, 0.513, "a1") == Allow()  # 0.008: less than what was taken back
    # 0.005, 0.008 and 0.013 follow one another now
    assert promote(family, 4, 0.513, 0.526, "a3").rule == "runaway"


def test_a_champion_that_nobody_told_of_can_be_gone_back_from(ledger):
    ledger.open_sweep("x", limits(), "family")
    ledger.promote("x", "p1", 0.5, 0.51)
    assert ledger.current_champion("family") is None
    assert ledger.rollback("family", "", "no", "dan")
    assert [one.rolled_back for one in ledger.promotions("family")] == [True]


def test_a_governor_shuts_down_goes_back_and_tells_of_it(family):
    governor = Governor(family)
    two(family)
    number = governor.shut_down("family", "fire", "loop").number
    governor.revoke_leases(number, "loop")
    assert governor.leases_left(number) == 0
    governor.take_step(number, "saved", "loop", "folder")
    assert governor.revert(number, "loop") == "a1"
    governor.take_step(number, "reverted", "loop", "a1")
    assert governor.incident(number) == governor.standing_incident("x")
    assert governor.current_champion("family") == champion(1)
    assert governor.rollback("family", "", "no", "dan")
    assert [one.rolled_back for one in governor.promotions("family")] == [True, True]
    assert governor.audit_page(0) == family.audit()
