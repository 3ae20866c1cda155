"""Approvals in the ledger: what lifts the kill switch, loosens limits, promotes a champion."""

import json
from dataclasses import asdict, replace

import pytest

from safety import (
    Allow,
    ApprovalMissing,
    ApprovalRefused,
    Champion,
    Deny,
    Hold,
    KeyReused,
    Ledger,
    LedgerError,
    LooserLimits,
    artifact_digest,
    audit,
)
from safety.approval import decide
from safety.improvement import RATE
from tests.safety import racers
from tests.safety.approvers import answer, approval, identity
from tests.safety.databases import raw
from tests.safety.fakes import kinds, limits, request
from tests.safety.test_races import run_all

HOUR = 3_600_000
TWO = approval("ann", "bob", "eve", quorum=2)
ONE = approval("ann", "bob")
NEW = Champion(artifact="a1", parent="", generation=1, evidence="e1", train_gflop=1)
NEXT = Champion(artifact="a2", parent="a1", generation=2, evidence="e2", train_gflop=1)


def newest(ledger):
    """Digest of the newest request."""
    return ledger.requests()[-1][0].request.digest


def last(ledger, kind="deny"):
    """The newest audit row of a kind: its rule and its detail."""
    entry = next(entry for _, entry, _ in reversed(ledger.audit()) if entry.kind == kind)
    return entry.rule, json.loads(entry.detail)


def refused(ledger, decision, rule):
    """A decision is refused, logged by its rule, and counts for nothing."""
    before, verdict = ledger.request(decision.request)
    with pytest.raises(ApprovalRefused) as caught:
        ledger.decide(decision)
    assert last(ledger)[0] == rule
    assert last(ledger)[1]["reason"] == str(caught.value)
    # that it is over may be written down
    found, stands = ledger.request(decision.request)
    assert (replace(found, closed=before.closed), stands) == (before, verdict)


# --- the kill switch


@pytest.fixture
def killed(ledger):
    """A ledger whose limits name three approvers, two of whom must agree; killed."""
    ledger.tighten(limits(approval=TWO), "ann")
    ledger.kill("fire", "ann")
    return ledger


def asked(ledger, by="dan"):
    with pytest.raises(ApprovalMissing):
        ledger.unkill("it is out", by)
    return newest(ledger)


def test_a_kill_switch_is_lifted_by_the_quorum_that_the_limits_name(killed):
    with pytest.raises(
        ApprovalMissing, match=r"unkill: request .* needs 2 approvals, and was approved by nobody"
    ):
        killed.unkill("it is out", "dan")
    name = newest(killed)
    answer(killed, name, "ann")
    assert asked(killed) == name
    assert killed.killed() is not None
    answer(killed, name, "eve")
    assert killed.unkill("it is out", "dan")
    assert killed.killed() is None
    assert last(killed, "unkill") == ("", {"reason": "it is out", "by": "dan", "request": name})
    assert [kind for kind in kinds(killed) if kind in ("ask", "approve", "unkill")] == [
        "ask",
        "approve",
        "approve",
        "unkill",
    ]
    assert audit.verify(killed.audit()) is None


def test_where_no_approvers_are_named_whoever_has_the_ledger_lifts_it(ledger):
    ledger.kill("fire", "ann")
    assert ledger.unkill("it is out", "ann")
    assert ledger.requests() == []


def test_a_switch_that_was_not_thrown_takes_no_approval(ledger):
    ledger.tighten(limits(approval=TWO), "ann")
    assert not ledger.unkill("it is out", "dan")
    assert ledger.requests() == []


def test_an_approval_lifts_no_later_kill(killed):
    name = asked(killed)
    for who in ("ann", "eve"):
        answer(killed, name, who)
    killed.kill("flood", "bob")
    assert asked(killed) != name
    assert killed.killed() is not None


def test_an_approval_that_was_used_lifts_nothing_again(killed):
    name = asked(killed)
    for who in ("ann", "eve"):
        answer(killed, name, who)
    killed.unkill("it is out", "dan")
    killed.kill("fire", "ann")
    assert asked(killed) != name
    refused(killed, decide(name, "approve", "bob", "seen", identity("bob")), "approval.replayed")


def test_a_ledger_whose_sweeps_have_no_approver_in_common_any_more_is_tightened_all_the_same(ledger, url):
    ledger.open_sweep("t", limits(approval=ONE))
    ledger.close_sweep("t", {})
    ledger.open_sweep("u", limits(approval=approval("eve")))
    with raw(url) as database:  # as it may have been opened before this was refused
        database.execute("UPDATE sweeps SET state = 'open' WHERE name = 't'")
    assert not ledger.approval().is_reachable
    assert ledger.tighten(limits(max_generations=1), "ann").number == 1


def test_an_open_sweep_adds_its_approvers_to_those_that_count_and_a_closed_one_does_not(ledger):
    ledger.open_sweep("t", limits(approval=ONE))
    assert ledger.approval() == ONE
    ledger.close_sweep("t", {})
    ledger.kill("fire", "ann")
    assert ledger.unkill("it is out", "dan")


def test_whoever_guards_the_switch_as_it_is_thrown_guards_it_after_the_sweep_is_closed(ledger):
    ledger.open_sweep("t", limits(approval=ONE))
    ledger.kill("fire", "ann")
    ledger.close_sweep("t", {})
    name = asked(ledger)
    refused(ledger, decide(name, "approve", "eve", "seen", identity("eve")), "approval.approver")
    answer(ledger, name, "ann")
    assert ledger.request(name)[1] == Allow()
    assert ledger.unkill("it is out", "dan")


def test_approvers_who_were_exchanged_under_a_kill_do_not_lift_it(ledger):
    ledger.tighten(limits(approval=ONE), "ann")
    ledger.kill("fire", "ann")
    wanted = limits(approval=approval("eve"))
    with pytest.raises(ApprovalMissing):
        ledger.loosen(wanted, "dan")
    answer(ledger, newest(ledger), "bob")
    ledger.loosen(wanted, "dan")
    name = asked(ledger)
    refused(ledger, decide(name, "approve", "eve", "seen", identity("eve")), "approval.approver")
    answer(ledger, name, "bob")
    assert ledger.unkill("it is out", "dan")


def test_limits_that_can_not_be_read_keep_no_switch_from_being_thrown_and_lift_none(ledger, url):
    with raw(url) as database:
        (kept,) = database.execute("SELECT limits FROM policies").fetchone()
        database.execute("UPDATE policies SET limits = 'x'")
        ledger.kill("fire", "ann")
        with pytest.raises(ValueError, match="Invalid JSON"):
            ledger.unkill("it is out", "dan")
        database.execute("UPDATE policies SET limits = '" + kept.replace("'", "''") + "'")
    asked(ledger)
    assert ledger.killed() is not None


def test_the_approvers_are_those_whom_all_limits_in_force_name(killed):
    name = asked(killed)
    answer(killed, name, "ann")
    killed.tighten(limits(approval=approval("bob", "eve", quorum=2)), "ann")
    assert asked(killed) != name  # the limits are others now
    refused(killed, decide(newest(killed), "approve", "ann", "seen", identity("ann")), "approval.approver")


@pytest.mark.parametrize(
    "named", [approval("dan"), approval("ann"), approval("ann", "bob", "eve", "dan", quorum=4)]
)
def test_limits_under_which_nothing_could_be_approved_do_not_come_into_force(ledger, named):
    ledger.tighten(limits(approval=TWO), "ann")
    rows = len(ledger.audit())
    with pytest.raises(LedgerError, match=r"approval\.quorum: \d must agree, and the approvers that all"):
        ledger.open_sweep("t", limits(approval=named))
    assert len(ledger.audit()) == rows


def test_a_sweep_is_not_gone_on_with_under_limits_whose_approvers_are_others(ledger):
    ledger.open_sweep("t", limits(approval=ONE))
    with pytest.raises(LedgerError, match=r"approval\.quorum: 1 must agree.* are nobody"):
        ledger.open_sweep("t", limits(approval=approval("eve")))
    with pytest.raises(LedgerError, match=r"approval\.quorum: 1 must agree.* are nobody"):
        ledger.tighten(limits(approval=approval("eve")), "dan")
    assert (ledger.sweep("t").limits.approval, ledger.versions()) == (ONE, [])


def test_a_lineage_whose_sweeps_name_no_common_approver_takes_no_other_sweep(ledger):
    ledger.open_sweep("t", limits(approval=approval("ann")), "line")
    ledger.close_sweep("t", {})
    with pytest.raises(LedgerError, match=r"approval\.quorum: 1 must agree.* are nobody"):
        ledger.open_sweep("u", limits(approval=approval("bob")), "line")


def test_a_sweep_is_not_gone_on_with_where_its_own_approvers_are_none_any_more(ledger):
    ledger.open_sweep("t", limits(approval=approval("ann")))
    ledger.close_sweep("t", {})
    ledger.tighten(limits(approval=approval("bob")), "bob")
    with pytest.raises(LedgerError, match=r"approval\.quorum: 1 must agree.* are nobody"):
        ledger.open_sweep("t", limits())


# --- decisions


def test_a_forged_decision_is_refused_and_logged(killed):
    name = asked(killed)
    refused(killed, decide(name, "approve", "ann", "seen", identity("dan")), "approval.forged")
    genuine = decide(name, "approve", "ann", "seen", identity("ann"))
    refused(killed, replace(genuine, reason="\ud83d\0", signature="\0"), "approval.forged")
    refused(killed, decide(name, "approve", "dan", "seen", identity("dan")), "approval.approver")


def test_a_decision_that_was_written_into_the_database_is_none(killed, url):
    name = asked(killed)
    answer(killed, name, "ann")
    with raw(url) as database:
        database.execute(
            "INSERT INTO approval_decisions (request, by, answer, reason, public, signature) "
            "SELECT request, 'eve', answer, reason, public, signature FROM approval_decisions"
        )
    asked(killed)
    assert killed.killed() is not None


def test_a_request_that_was_changed_in_the_database_is_approved_no_more(killed, url):
    name = asked(killed)
    for who in ("ann", "eve"):
        answer(killed, name, who)
    with raw(url) as database:
        database.execute("UPDATE approval_requests SET about = 'another'")
    asked(killed)
    assert killed.killed() is not None


def test_a_request_expires_and_is_asked_anew(killed, clock):
    name = asked(killed)
    answer(killed, name, "ann")
    clock.wall += 24 * HOUR
    refused(killed, decide(name, "approve", "eve", "seen", identity("eve")), "approval.expired")
    assert asked(killed) != name
    assert killed.requests()[0][1].rule == "approval.expired"


def test_an_approval_that_is_complete_expires_too(killed, clock):
    name = asked(killed)
    for who in ("ann", "eve"):
        answer(killed, name, who)
    clock.wall += 24 * HOUR
    assert asked(killed) != name


def test_a_proposer_approves_nothing_where_the_limits_forbid_it(killed):
    name = asked(killed, by="ann")
    refused(killed, decide(name, "approve", "ann", "seen", identity("ann")), "approval.proposer")
    for who in ("bob", "eve"):
        answer(killed, name, who)
    assert killed.unkill("it is out", "ann")


def test_an_approver_decides_once(killed):
    name = asked(killed)
    answer(killed, name, "ann")
    refused(killed, decide(name, "approve", "ann", "yes", identity("ann")), "approval.twice")
    answer(killed, name, "bob", "reject")
    for said in ("approve", "reject"):
        refused(killed, decide(name, said, "bob", "oh", identity("bob")), "approval.twice")


def test_an_approver_takes_an_approval_back_and_the_audit_has_both(killed):
    name = asked(killed)
    answer(killed, name, "ann")
    answer(killed, name, "ann", "reject", "a fault")
    found, verdict = killed.request(name)
    assert [(one.by, one.answer) for one in found.decisions] == [("ann", "reject")]
    assert verdict.rule == "approval.rejected"
    assert [kind for kind in kinds(killed) if kind in ("approve", "reject")] == ["approve", "reject"]


@pytest.mark.parametrize("said", ["approve", "reject"])
def test_a_decision_that_somebody_forged_in_the_database_keeps_nobody_from_deciding(killed, url, said):
    name = asked(killed)
    with raw(url) as database:
        database.execute(
            "INSERT INTO approval_decisions (request, by, answer, reason, public, signature) "
            f"VALUES ('{name}', 'bob', '{said}', 'mine', '00', '00')"
        )
    answer(killed, name, "bob", "reject", "it burns")
    assert [one.reason for one in killed.request(name)[0].decisions] == ["it burns"]


def test_a_rejection_closes_a_request_whatever_came_before(killed):
    name = asked(killed)
    for who in ("ann", "eve"):
        answer(killed, name, who)
    answer(killed, name, "bob", "reject", "it burns")
    assert killed.request(name)[1] == Deny(
        "approval.rejected", f"request {name[:12]} was rejected by bob: it burns"
    )
    assert last(killed, "reject")[1]["reason"] == "it burns"
    asked(killed)
    assert killed.killed() is not None


def test_a_rejection_stays_where_limits_come_into_force_that_do_not_name_who_rejected(line):
    name = line.ask_promotion("p", NEW, "loop", "better").digest
    answer(line, name, "bob", "reject", "it burns")
    line.open_sweep("q", limits(approval=approval("ann")), "p")
    refused(line, decide(name, "approve", "ann", "seen", identity("ann")), "approval.rejected")
    assert promoted(line, name=name) == Deny(
        "approval.rejected", f"request {name[:12]} was rejected by bob: it burns"
    )


def test_after_a_rejection_no_approval_is_taken_and_it_is_asked_anew(killed, clock):
    name = asked(killed)
    answer(killed, name, "bob", "reject")
    refused(killed, decide(name, "approve", "ann", "seen", identity("ann")), "approval.rejected")
    clock.wall += 1
    again = asked(killed)
    assert again != name
    clock.wall += 1
    assert asked(killed) == again


def test_a_request_that_is_not_there_or_not_the_only_one_is_told(killed, clock):
    name = asked(killed)
    assert killed.request(name[:12])[0].request.digest == name
    for unknown in ("xyz", "%", ""):
        with pytest.raises(LedgerError, match=r"request .*: (not in the ledger|several)"):
            killed.request(unknown)
    with pytest.raises(LedgerError, match="not in the ledger"):
        killed.decide(decide("0" * 64, "approve", "ann", "seen", identity("ann")))


def test_a_refusal_outlives_a_transaction_that_is_shared(killed):
    name = asked(killed)
    with killed.together():
        with pytest.raises(ApprovalRefused):
            killed.decide(decide(name, "approve", "dan", "x", identity("dan")))
        with pytest.raises(ApprovalMissing):
            killed.unkill("it is out", "dan")
    assert last(killed)[0] == "approval.approver"


@pytest.fixture
def waits(url):
    """A ledger by this host's own clocks, with a request that waits for one of two people."""
    opened = Ledger(url)
    opened.open_sweep("p", limits(approval=ONE))
    opened.ask_promotion("p", NEW, "loop", "better")
    yield opened
    opened.close()


@pytest.mark.processes
def test_of_two_operators_at_once_the_one_who_rejects_wins(waits, url):
    answers = dict(run_all(racers.decide_at_once, [(url, "approve"), (url, "reject")]))
    assert answers["reject"] == "taken"
    assert answers["approve"] in ("taken", "approval.rejected")
    assert waits.request(newest(waits))[1].rule == "approval.rejected"
    assert promoted(waits, name=newest(waits)).rule == "approval.rejected"
    assert audit.verify(waits.audit()) is None


@pytest.mark.processes
def test_one_operator_who_decides_in_two_places_at_once_has_rejected(waits, url):
    answers = dict(run_all(racers.decide_as_one, [(url, "approve"), (url, "reject")]))
    assert answers["reject"] == "taken"
    assert answers["approve"] in ("taken", "approval.twice")
    assert [one.answer for one in waits.request(newest(waits))[0].decisions] == ["reject"]


# --- loosening


def test_limits_are_loosened_by_an_approval_and_bind_no_longer(ledger):
    ledger.open_sweep("t", limits(sweep={"trials": 9}))
    ledger.tighten(limits(approval=ONE, cluster={"trials": 3}, sweep={"trials": 2}, max_generations=3), "ann")
    wanted = limits(
        approval=ONE, cluster={"trials": 8}, sweep={"trials": 9}, max_generations=3, lease_seconds=4
    )
    with pytest.raises(ApprovalMissing, match="loosen: request"):
        ledger.loosen(wanted, "dan")
    assert ledger.sweep("t").limits.sweep.trials == 2
    name = newest(ledger)
    answer(ledger, name, "ann")
    version = ledger.loosen(wanted, "dan", identity("governor"))
    assert (version.number, version.digest, version.is_authentic) == (2, wanted.digest, True)
    told = last(ledger, "loosen")[1]
    assert (told["request"], told["looser"]) == (name, ["cluster.trials", "sweep.trials"])
    bound = ledger.sweep("t").limits
    assert (bound.sweep.trials, bound.max_generations, bound.lease_seconds) == (9, 3, 4)
    caps = {(b.scope, b.resource): (b.target, b.cap) for b in ledger.budgets("t")}
    assert caps["cluster", "trials"] == (8, 8)
    assert caps["sweep:t", "trials"] == (9, 9)


def test_a_sweeps_own_limits_hold_where_they_are_tighter_than_the_looser_version(ledger):
    ledger.tighten(limits(approval=ONE, cluster={"trials": 3}), "ann")
    wanted = limits(approval=ONE, cluster={"trials": 50})
    with pytest.raises(ApprovalMissing):
        ledger.loosen(wanted, "dan")
    answer(ledger, newest(ledger), "ann")
    ledger.loosen(wanted, "dan")
    target = next(b.target for b in ledger.budgets("s") if (b.scope, b.resource) == ("cluster", "trials"))
    assert target == 10


def test_a_loosening_raises_no_cap_that_nobody_approved(ledger):
    ledger.tighten(limits(approval=ONE, cluster={"trials": 10}, max_generations=3), "ann")
    ledger.open_sweep("t", limits(cluster={"trials": 4}, sweep={"trials": 2}))
    ledger.close_sweep("t", {})
    wanted = limits(approval=ONE, cluster={"trials": 10}, max_generations=4)
    with pytest.raises(ApprovalMissing):
        ledger.loosen(wanted, "dan")
    answer(ledger, newest(ledger), "ann")
    ledger.loosen(wanted, "dan")
    targets = {b.scope: b.target for b in ledger.budgets("t") if b.resource == "trials"}
    assert targets == {"cluster": 4, "sweep:t": 2}


def test_what_a_looser_version_makes_tighter_ends_what_is_over_it(ledger):
    ledger.tighten(limits(approval=ONE, max_generations=3), "ann")
    assert ledger.reserve(request()) == Allow()
    small = limits(approval=ONE, max_generations=4)
    small = small.model_copy(update={"bounds": small.bounds.model_copy(update={"max_params": 99})})
    with pytest.raises(ApprovalMissing):
        ledger.loosen(small, "dan")
    answer(ledger, newest(ledger), "ann")
    ledger.loosen(small, "dan")
    assert ledger.lease("s/1").state == "void"


def test_an_approval_of_limits_is_of_these_in_the_place_of_those(ledger, clock):
    ledger.tighten(limits(approval=ONE, max_generations=3), "ann")
    four, five = (limits(approval=ONE, max_generations=number) for number in (4, 5))
    with pytest.raises(ApprovalMissing):
        ledger.loosen(four, "dan")
    answer(ledger, newest(ledger), "ann")
    with pytest.raises(ApprovalMissing):
        ledger.loosen(five, "dan")
    ledger.tighten(limits(approval=ONE, max_generations=2), "ann")
    with pytest.raises(ApprovalMissing):
        ledger.loosen(four, "dan")
    assert len(ledger.requests()) == 3


def test_approvers_are_exchanged_by_those_before_them(ledger):
    ledger.tighten(limits(approval=ONE), "ann")
    for changed in (approval("ann", "bob", "eve"), approval("eve")):
        with pytest.raises(
            LooserLimits, match=r"approval\.approvers: .*eve .* is asked for and ann .*, bob .* is in"
        ):
            ledger.tighten(limits(approval=changed), "eve")
    with pytest.raises(ApprovalMissing):
        ledger.loosen(limits(approval=approval("eve")), "dan")
    refused(ledger, decide(newest(ledger), "approve", "eve", "me", identity("eve")), "approval.approver")
    answer(ledger, newest(ledger), "bob")
    ledger.loosen(limits(approval=approval("eve")), "dan")
    assert ledger.approval() == approval("eve")


def test_nobody_loosens_where_the_version_in_force_names_no_approvers(ledger):
    with pytest.raises(LooserLimits, match="no version of the limits binds every sweep"):
        ledger.loosen(limits(), "dan")
    ledger.tighten(limits(max_generations=3), "ann")
    ledger.open_sweep("t", limits(approval=ONE, max_generations=3))  # a sweep's approvers are no cluster's
    with pytest.raises(LooserLimits, match="version 1 of the limits names no approvers"):
        ledger.loosen(limits(), "dan")
    assert ledger.requests() == []


def test_what_is_not_looser_takes_no_approval(ledger):
    ledger.tighten(limits(approval=ONE), "ann")
    with pytest.raises(LedgerError, match="nothing in these limits is looser than version 1"):
        ledger.loosen(limits(approval=ONE, max_generations=2), "dan")


# --- promotions


@pytest.fixture
def line(ledger):
    """A ledger with the sweep `p`, whose champions one of two people approves."""
    ledger.open_sweep("p", limits(approval=ONE))
    return ledger


def approved(ledger, champion=NEW, by="ann"):
    name = ledger.ask_promotion("p", champion, "loop", "5% better").digest
    answer(ledger, name, by)
    return name


def promoted(ledger, champion=NEW, name="", key="p/1"):
    return ledger.promote("p", key, 1.0, 1.04, champion=champion, request=name)


def test_a_champion_is_promoted_by_an_approval_of_exactly_it(line):
    name = approved(line)
    assert promoted(line, name=name) == Allow()
    told = last(line, "promote")[1]
    assert (told["request"], told["artifact"], told["generation"]) == (name, "a1", 1)
    assert line.request(name)[0].used_for == "promotion p/1"


def test_without_an_approval_nothing_is_promoted(line):
    assert promoted(line) == Hold(
        "require_approval", "p/1: the limits ask for an approval, and none was shown"
    )
    name = line.ask_promotion("p", NEW, "loop", "better").digest
    assert promoted(line, name=name).rule == "approval.quorum"
    assert last(line, "hold")[0] == "approval.quorum"
    for unknown in ("0" * 64, name[:12]):
        assert promoted(line, name=unknown).rule == "approval.unknown"
    assert line.promotions("p") == []


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"artifact": "a2"}, "approval.subject"),
        ({"parent": "a9"}, "approval.parent"),
        ({"generation": 3}, "approval.generation"),
        ({"evidence": "e2"}, "approval.evidence"),
        ({"train_gflop": 0}, "approval.train_gflop"),
    ],
)
def test_an_approval_for_another_champion_is_refused_and_logged(line, changed, rule):
    name = approved(line)
    assert promoted(line, replace(NEW, **changed), name).rule == rule
    assert last(line)[0] == rule
    assert line.promotions("p") == []
    assert promoted(line, name=name) == Allow()


def test_an_approval_under_other_limits_is_refused_and_logged(line):
    name = approved(line)
    line.tighten(limits(max_generations=2), "ann")
    assert promoted(line, name=name).rule == last(line)[0] == "approval.policy"


def test_an_approval_for_another_sweep_is_refused(line):
    name = approved(line)
    line.open_sweep("q", limits(approval=ONE))
    assert line.promote("q", "q/1", 1.0, 1.05, champion=NEW, request=name).rule == "approval.sweep"


def test_an_approval_promotes_once(line):
    name = approved(line)
    assert promoted(line, name=name) == Allow()
    assert promoted(line, name=name) == Allow()
    assert line.promote("p", "p/2", 1.05, 1.06, champion=NEW, request=name).rule == "approval.generation"
    assert last(line)[0] == "approval.generation"
    with pytest.raises(KeyReused):
        promoted(line, replace(NEW, artifact="a2"), name)
    assert len(line.promotions("p")) == 1


def test_an_approval_that_has_expired_or_was_rejected_promotes_nothing(line, clock):
    name = approved(line)
    answer(line, name, "bob", "reject")
    assert promoted(line, name=name).rule == "approval.rejected"
    other = approved(line, replace(NEW, artifact="a2"))
    clock.wall += 24 * HOUR
    assert promoted(line, replace(NEW, artifact="a2"), other).rule == "approval.expired"
    assert line.promotions("p") == []


def is_refused_to(line, name):
    refused(line, decide(name, "reject", "bob", "late", identity("bob")), "approval.expired")


@pytest.mark.parametrize(
    "find",
    [
        lambda line, name: promoted(line, name=name),
        is_refused_to,
        lambda line, _: line.ask_promotion("p", NEW, "loop", "again"),
    ],
    ids=["use", "decide", "ask"],
)
def test_an_approval_that_was_found_expired_stays_so_where_the_clock_is_set_back(line, clock, find):
    name = approved(line)
    clock.wall += 24 * HOUR
    find(line, name)
    clock.wall -= 24 * HOUR
    assert promoted(line, name=name).rule == "approval.expired"
    is_refused_to(line, name)


def test_a_clock_that_is_set_back_before_a_request_closes_it_for_no_longer_than_that(line, clock):
    name = approved(line)
    clock.wall -= HOUR
    assert promoted(line, name=name).rule == "approval.expired"
    clock.wall += HOUR
    assert promoted(line, name=name) == Allow()


def test_a_request_that_was_rejected_is_told_to_be_that_after_its_hours_too(line, clock):
    name = approved(line)
    answer(line, name, "bob", "reject")
    clock.wall += 24 * HOUR
    is_refused_to(line, name)
    assert line.request(name)[1].rule == "approval.rejected"


def test_an_artifact_that_was_exchanged_on_disk_after_its_approval_is_not_promoted(line, tmp_path):
    weights = tmp_path / "weights"
    weights.write_bytes(b"approved")
    name = approved(line, replace(NEW, artifact=artifact_digest(weights)))
    weights.write_bytes(b"exchanged")
    assert promoted(line, replace(NEW, artifact=artifact_digest(weights)), name).rule == "approval.subject"
    assert last(line)[0] == "approval.subject"
    assert line.promotions("p") == []


def test_an_approval_is_no_way_around_the_ceiling_of_improvement(line):
    name = approved(line)
    assert line.promote("p", "p/1", 1.0, 1.5, champion=NEW, request=name).rule == "max_improvement_rate"
    assert promoted(line, name=name) == Allow()


def test_an_approval_that_says_so_lifts_the_hold_of_the_ceiling_of_improvement_and_no_other(line):
    name = line.ask_promotion("p", NEW, "loop", "50% better", RATE).digest
    assert line.promote("p", "p/1", 1.0, 1.5, champion=NEW, request=name).rule == "approval.quorum"
    answer(line, name, "ann")
    assert line.promote("p", "p/1", 1.0, 1.5, champion=replace(NEW, artifact="a2"), request=name).rule == (
        "approval.subject"
    )
    assert line.promote("p", "p/1", 1.0, 1.5, champion=NEW, request=name) == Allow()
    assert last(line, "promote")[1]["lifts"] == RATE
    again = line.ask_promotion("p", NEXT, "loop", "another rule", "require_approval").digest
    answer(line, again, "ann")
    assert line.promote("p", "p/2", 1.5, 2.5, champion=NEXT, request=again).rule == RATE


def test_what_is_held_until_a_time_is_lifted_by_no_approval(ledger):
    ledger.open_sweep("p", limits(approval=ONE, on_excess="throttle"))
    name = approved(ledger)
    assert promoted(ledger, name=name) == Allow()
    again = ledger.ask_promotion("p", NEXT, "loop", "8% more", RATE).digest
    answer(ledger, again, "ann")
    held = ledger.promote("p", "p/2", 1.04, 1.12, champion=NEXT, request=again)
    assert isinstance(held, Hold)
    assert held.until_ms > 0


def test_a_hold_is_lifted_by_people_even_where_promotions_need_no_approval(ledger):
    ledger.open_sweep("p", limits(approval=ONE, require_approval=False))
    name = ledger.ask_promotion("p", NEW, "loop", "50% better", RATE).digest
    assert ledger.promote("p", "p/1", 1.0, 1.5, champion=NEW, request=name).rule == "approval.quorum"
    answer(ledger, name, "ann")
    assert ledger.promote("p", "p/1", 1.0, 1.5, champion=NEW, request=name) == Allow()


def test_of_two_approved_champions_that_follow_the_same_one_the_second_is_refused_and_logged(line):
    twin = replace(NEW, artifact="a2")
    first, second = approved(line), approved(line, twin)
    assert promoted(line, name=first) == Allow()
    denial = Deny("approval.generation", "a2 is generation 1, and 2 is the next of lineage p")
    assert promoted(line, twin, second, "p/2") == denial
    assert last(line) == (
        "approval.generation",
        {**asdict(twin), "request": second, "reason": denial.reason},
    )
    assert line.request(second)[0].used_for == ""


def test_a_champion_takes_the_place_of_its_lineages_last_one_only(line):
    assert promoted(line, name=approved(line)) == Allow()
    stray = replace(NEXT, parent="a0")
    assert promoted(line, stray, approved(line, stray), "p/2") == Deny(
        "approval.parent", "a2 would follow a0, and lineage p is at a1"
    )
    line.open_sweep("q", limits(approval=ONE), "p")
    name = line.ask_promotion("q", NEXT, "loop", "better").digest
    answer(line, name, "ann")
    assert line.promote("q", "q/1", 1.04, 1.05, champion=NEXT, request=name) == Allow()


def test_after_a_promotion_that_named_no_champion_the_generation_alone_is_compared(ledger):
    ledger.open_sweep("p", limits(require_approval=False, approval=ONE))
    assert ledger.promote("p", "p/0", 1.0, 1.01) == Allow()
    ledger.open_sweep("q", limits(approval=ONE), "p")
    for champion, verdict in ((NEW, "approval.generation"), (replace(NEXT, parent="a0"), "")):
        name = approved(ledger, champion)
        assert getattr(promoted(ledger, champion, name), "rule", "") == verdict


@pytest.mark.parametrize("other", [None, replace(NEW, artifact="a2")])
def test_a_key_that_needed_no_approval_is_of_one_champion_too(ledger, other):
    ledger.open_sweep("p", limits(require_approval=False))
    assert [promoted(ledger), promoted(ledger)] == [Allow(), Allow()]
    with pytest.raises(KeyReused):
        promoted(ledger, other)
    assert ledger.promote("p", "p/2", 1.05, 1.06) == Allow()
    with pytest.raises(KeyReused):
        ledger.promote("p", "p/2", 1.05, 1.06, champion=NEW)


def test_one_sweep_of_a_lineage_that_asks_for_approvals_binds_the_others(line):
    line.open_sweep("q", limits(require_approval=False), "p")
    assert line.promote("q", "q/1", 1.0, 1.05).rule == "require_approval"


def test_where_no_approvers_are_named_a_champion_can_not_be_asked_for(ledger):
    with pytest.raises(LedgerError, match="sweep s: its limits name no approvers"):
        ledger.ask_promotion("s", NEW, "loop", "better")
    assert ledger.promote("s", "s/1", 1.0, 1.05, champion=NEW).rule == "require_approval"
