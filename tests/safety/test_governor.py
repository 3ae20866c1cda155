import math
from dataclasses import replace

import pytest

from safety import Allow, Champion, Deny, Governor, Hold, KeyReused, LeaseLost, Measured, Report, Usage
from safety.endings import SWEEP_SILENCE_MS
from safety.errors import LeaseDenied
from safety.lease import DIED, OVERTIME
from tests.safety.fakes import GFLOP, amounts, claim, kinds, limits, measured, request


def begun(governor, key="s/1", **changed):
    assert governor.admit(request(key, **changed)) == Allow()
    return governor.activate(key, "d1", "w1", measured(claim(**changed)))


def last(ledger):
    _, entry, _ = ledger.audit()[-1]
    return entry


# --- admit


def test_what_is_under_every_ceiling_and_budget_is_reserved(governor, ledger):
    assert governor.admit(request()) == Allow()
    assert ledger.lease("s/1").state == "reserved"


def test_what_is_over_a_ceiling_is_recorded_and_holds_nothing(governor, ledger):
    verdict = governor.admit(request(params=1001))
    assert verdict.rule == "max_params"
    assert ledger.lease("s/1") is None
    assert (last(ledger).kind, last(ledger).key, last(ledger).rule) == ("deny", "s/1", "max_params")
    assert "1,001 parameters" in last(ledger).detail


def test_what_no_budget_has_room_for_is_recorded(governor, ledger):
    assert governor.admit(request(train_flops=101 * GFLOP)).rule == "budget.train_gflop"
    assert (last(ledger).kind, last(ledger).rule) == ("deny", "budget.train_gflop")


def test_what_must_wait_is_not_recorded(governor, ledger):
    governor.admit(request(train_flops=100 * GFLOP))
    before = kinds(ledger)
    assert isinstance(governor.admit(request("s/2")), Hold)
    assert kinds(ledger) == before


def test_room_that_silent_drivers_hold_is_found_when_it_is_needed(governor, ledger, clock):
    ledger.open_sweep("gone", limits())
    governor.admit(request("gone/1", sweep="gone", train_flops=100 * GFLOP))
    clock.pass_ms(SWEEP_SILENCE_MS + 1)
    ledger.pulse("s")
    assert governor.admit(request()) == Allow()


def test_a_key_used_again_for_something_over_a_ceiling_is_an_error_and_no_verdict_on_its_lease(
    governor, ledger
):
    governor.admit(request())
    before = ledger.lease("s/1"), kinds(ledger)
    with pytest.raises(KeyReused):
        governor.admit(request(params=1001))
    assert (ledger.lease("s/1"), kinds(ledger)) == before


def test_a_trial_that_is_asked_for_again_after_its_end_keeps_its_verdict(governor):
    grant = begun(governor)
    governor.settle(grant.lease, grant.fence, Usage(reports=5))
    assert governor.admit(request()).rule == "ended"
    assert governor.verdict("s/1") == Allow()


# --- activate


def test_a_model_as_it_was_reserved_begins(governor):
    assert begun(governor).claim == claim()


@pytest.mark.parametrize(
    "built", [Measured(params=101, forward_flops=200), Measured(params=100, forward_flops=1)]
)
def test_a_model_other_than_reserved_is_an_incident_and_gives_its_hold_back(governor, ledger, built):
    governor.admit(request())
    with pytest.raises(LeaseLost, match=r"s/1: built .* reserved 100 and 200"):
        governor.activate("s/1", "d1", "w1", built)
    assert ledger.lease("s/1").state == "void"
    assert amounts(ledger, "trials") == (0, 0, 0)
    assert [kind for kind in kinds(ledger) if kind in ("incident", "activate")] == ["incident"]
    assert governor.verdict("s/1").rule == "as_reserved"


def test_nothing_begins_that_was_not_reserved(governor):
    with pytest.raises(LeaseLost, match="s/1: nothing was reserved"):
        governor.activate("s/1", "d1", "w1", measured(claim()))


def test_a_stranger_with_another_candidate_changes_nothing(governor, ledger):
    governor.admit(request())
    before = ledger.lease("s/1"), kinds(ledger)
    with pytest.raises(LeaseLost, match="nothing was reserved for this candidate"):
        governor.activate("s/1", "d2", "w2", Measured(params=9, forward_flops=9))
    assert (ledger.lease("s/1"), kinds(ledger)) == before


def test_a_second_holder_changes_nothing_whatever_it_has_built(governor, ledger):
    begun(governor)
    before = ledger.lease("s/1"), kinds(ledger)
    with pytest.raises(LeaseLost, match="active already"):
        governor.activate("s/1", "d1", "w2", Measured(params=9, forward_flops=9))
    assert (ledger.lease("s/1"), kinds(ledger)) == before


# --- report


def test_a_good_report_goes_on(governor):
    begun(governor)
    assert governor.report("s/1", Report(score=0.5)) == Allow()


def test_a_refused_report_is_an_incident_and_the_verdict_on_the_trial(governor, ledger):
    begun(governor)
    assert governor.report("s/1", Report(score=math.nan)).rule == "finite_score"
    assert kinds(ledger)[-2:] == ["incident", "revoke"]
    assert governor.verdict("s/1").rule == "finite_score"


def test_the_first_refusal_is_the_verdict(governor):
    begun(governor)
    governor.report("s/1", Report(score=math.nan))
    governor.report("s/1", Report(score=0.5, domains={"reasoning": 1.0}))
    assert governor.verdict("s/1").rule == "finite_score"


def test_a_report_without_an_active_lease_is_denied_whatever_it_says(governor, ledger):
    assert governor.report("s/1", Report(score=0.5)).reason.endswith("(none was reserved)")
    governor.admit(request())
    assert governor.report("s/1", Report(score=0.5)).reason == "s/1: no active lease (reserved)"
    governor.activate("s/1", "d1", "w1", measured(claim()))
    governor.revoke("s/1", "kill", "why")
    assert governor.report("s/1", Report(score=0.5)) == Deny("kill", "why")


# --- the rest


def test_a_lease_is_renewed_settled_and_voided_through_the_governor(governor, ledger):
    grant = begun(governor)
    assert governor.renew(grant.lease, grant.fence) == 15_000
    governor.settle(grant.lease, grant.fence, Usage(reports=1))
    assert ledger.lease("s/1").state == "settled"
    governor.admit(request("s/2"))
    governor.void("s/2", "not needed")
    assert ledger.lease("s/2").state == "void"


def test_settling_after_deadline_and_grace_comes_too_late(governor, ledger, clock):
    grant = begun(governor)
    clock.pass_ms(20_001)
    with pytest.raises(LeaseLost, match="its deadline and grace"):
        governor.settle(grant.lease, grant.fence, Usage())
    assert amounts(ledger, "train_gflop") == (0, 10, 0)


def test_a_trial_that_failed_has_that_as_its_verdict_and_keeps_its_hold(governor, ledger):
    begun(governor)
    governor.fail("s", "s/1", "RuntimeError: no")
    assert governor.verdict("s/1") == Deny("failed", "RuntimeError: no", {"failed": 1.0})
    assert ledger.lease("s/1").state == "active"
    assert last(ledger).kind == "fail"


def test_a_trial_without_a_lease_has_no_verdict(governor):
    assert governor.verdict("s/none") == Allow()


def test_a_pulse_answers_the_state_and_reaps(governor, ledger, clock):
    begun(governor)
    clock.pass_ms(20_001)
    assert governor.pulse("s") == "open"
    assert ledger.lease("s/1").state == "forfeited"
    governor.freeze("s", "why")
    assert governor.pulse("s") == governor.state("s") == "frozen"


def test_the_status_tells_state_reason_and_both_scopes(governor):
    governor.freeze("s", "why")
    status = governor.status("s")
    assert (status.state, status.reason) == ("frozen", "why")
    assert {budget.scope for budget in status.budgets} == {"cluster", "sweep:s"}


def test_an_improvement_over_the_ceiling_is_held_and_recorded(governor, ledger):
    before = kinds(ledger)
    assert governor.judge_improvement("s", 10.0, 11.0) == Allow()
    assert kinds(ledger) == before
    assert isinstance(governor.judge_improvement("s", 10.0, 11.5), Hold)
    assert (last(ledger).kind, last(ledger).rule) == ("hold", "max_improvement_rate")


@pytest.mark.parametrize(
    ("passed_ms", "reason", "rule"),
    [
        (15_000, "its worker died", "failed"),
        (15_001, "its worker died", "lease"),
        (40_000, "its worker died", "lease"),
        (0, "safety.errors.GovernorUnreachable: no answer", "lease"),
        (0, "safety.errors.LedgerUnavailable: locked", "lease"),
    ],
)
def test_a_trial_that_failed_since_nobody_renewed_its_lease_is_told_from_one_that_failed_by_itself(
    governor, ledger, clock, passed_ms, reason, rule
):
    begun(governor)
    clock.pass_ms(passed_ms)
    ledger.reap()  # past its deadline and grace it is forfeited
    governor.fail("s", "s/1", reason)
    assert governor.verdict("s/1") == Deny(rule, reason, {rule: 1.0})
    assert (last(ledger).kind, last(ledger).rule) == ("fail", rule)


@pytest.mark.parametrize(("reason", "rule"), [(DIED, "lease"), ("ValueError: no such luck", "failed")])
def test_a_worker_that_was_dead_before_its_trial_began_says_nothing_of_the_trial(governor, reason, rule):
    governor.admit(request())
    governor.fail("s", "s/1", reason)
    assert governor.verdict("s/1").rule == rule


@pytest.mark.parametrize(("passed_ms", "reason"), [(59_999, DIED), (60_000, OVERTIME)])
def test_a_worker_that_died_when_its_time_was_over_is_told_from_one_that_was_killed(
    governor, clock, passed_ms, reason
):
    grant = begun(governor)
    while passed_ms > 0:
        step = min(passed_ms, 10_000)
        clock.pass_ms(step)
        governor.renew(grant.lease, grant.fence)
        passed_ms -= step
    governor.fail("s", "s/1", DIED)
    assert governor.verdict("s/1") == Deny("failed", reason, {"failed": 1.0})


def test_a_worker_that_died_when_its_lease_was_settled_did_not_run_out_of_its_time(governor, clock):
    grant = begun(governor)
    governor.settle(grant.lease, grant.fence, Usage(reports=5))
    clock.pass_ms(60_000)
    governor.fail("s", "s/1", DIED)
    assert governor.verdict("s/1").reason == DIED


def test_a_trial_that_lost_its_lease_may_be_tried_again_once_that_is_over(governor, ledger, clock):
    begun(governor)
    clock.pass_ms(15_001)
    governor.fail("s", "s/1", "its worker died")
    assert governor.readmit(request()).rule == "lease"
    clock.pass_ms(20_001)
    ledger.reap()
    assert governor.readmit(request()) == Allow()


def test_a_driver_learns_from_the_governor_what_becomes_of_a_promotion(governor, ledger):
    approvers = {"approvers": {"ann": "a" * 64}}
    governor.open_sweep("p", limits(approval=approvers), "family")
    champion = Champion(artifact="a1", parent="", generation=1, evidence="e1", train_gflop=1)
    asked = governor.ask_promotion("p", champion, "loop", "5% better")
    found, verdict = governor.request(asked.name)
    assert (found, verdict.rule) == (ledger.request(asked.name)[0], "approval.quorum")
    assert list(governor.approval("p").keys) == ["ann"]
    verdict = governor.promote("p", "p/1", 0.5, 0.51, "max", champion, asked.digest)
    assert verdict.rule == "approval.quorum"
    assert governor.promotions("family") == []
    governor.open_sweep("q", limits(require_approval=False))
    assert governor.promote("q", "q/1", 0.5, 0.51) == Allow()
    assert [one.key for one in governor.promotions("q")] == ["q/1"]


def test_sweeps_are_opened_and_closed_through_the_governor(ledger, url):
    governor = Governor(ledger)
    governor.open_sweep("t", limits())
    governor.close_sweep("t", {})
    assert ledger.sweep("t").state == "closed"
    assert governor.ledger_url() == url


def test_a_worker_whose_report_was_refused_is_renewed_no_more_and_settles(governor, ledger):
    grant = begun(governor)
    governor.report("s/1", Report(score=math.nan))
    with pytest.raises(LeaseDenied, match="revoked: score is nan"):
        governor.renew(grant.lease, grant.fence)
    # the answer was lost, and the driver asks again
    assert governor.report("s/1", Report(score=math.nan)).rule == "finite_score"
    assert kinds(ledger).count("incident") == 1
    governor.settle(grant.lease, grant.fence, Usage(reports=1))
    assert ledger.lease("s/1").state == "settled"


def test_only_a_report_of_its_own_gives_a_worker_time_to_end_and_no_switch_does(governor, ledger):
    grants = {name: begun(governor, f"s/{name}") for name in ("operator", "killed", "both")}
    governor.revoke("s/operator", "operator", "no reason")
    governor.report("s/both", Report(score=math.nan))
    with pytest.raises(LeaseLost) as lost:
        governor.renew(grants["operator"].lease, grants["operator"].fence)
    assert lost.type is LeaseLost
    ledger.kill("drill", "ann")
    for name in ("killed", "both"):
        with pytest.raises(LeaseLost) as lost:
            governor.renew(grants[name].lease, grants[name].fence)
        assert lost.type is LeaseLost


LIES = {
    "nothing": Usage(),
    "less": Usage(reports=1, train_flops=1, wall_ms=1, gpu_ms=1),
    "no amounts": Usage(reports=-1, train_flops=-5),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_trial_is_charged_what_its_reports_told_whatever_it_tells_in_the_end(governor, ledger, lie):
    grant = begun(governor)
    for reports in (1, 3, 2):  # one came late
        told = Usage(reports=reports, wall_ms=reports * 1000, gpu_ms=reports * 100, lease=grant.lease)
        assert governor.report("s/1", Report(score=0.5, usage=told)) == Allow()
    governor.settle(grant.lease, grant.fence, lie)
    expected = 10 if lie.reports < 0 else 6  # GFLOP of all five reports, or of three
    assert amounts(ledger, "train_gflop")[1] == expected
    assert (amounts(ledger, "wall_ms")[1], amounts(ledger, "gpu_ms")[1]) == (3000, 300)


def test_a_report_that_tells_no_use_counts_as_one(governor, ledger):
    grant = begun(governor)
    governor.report("s/1", Report(score=0.5))
    governor.settle(grant.lease, grant.fence, Usage())
    assert amounts(ledger, "train_gflop")[1] == 2


@pytest.mark.parametrize("told", [Usage(), Usage(reports=1)])
def test_every_report_counts_whatever_it_tells_of_their_number(governor, ledger, told):
    grant = begun(governor)
    for _ in range(4):
        governor.report("s/1", Report(score=0.5, usage=replace(told, lease=grant.lease)))
    governor.settle(grant.lease, grant.fence, told)
    assert amounts(ledger, "train_gflop")[1] == 8


def test_a_report_that_is_numbered_counts_once_though_it_comes_twice(governor, ledger):
    grant = begun(governor)
    for number in (1, 2, 2, 3, 2):
        assert governor.report("s/1", Report(score=0.5, number=number)) == Allow()
    governor.settle(grant.lease, grant.fence, Usage())
    assert amounts(ledger, "train_gflop")[1] == 6


def test_a_report_beyond_those_that_were_reserved_is_denied(governor, ledger):
    begun(governor)
    verdicts = [governor.report("s/1", Report(score=0.5, number=number)) for number in range(1, 7)]
    assert verdicts[:5] == [Allow()] * 5
    assert verdicts[5] == Deny("within_reservation", "reports: heard 6, reserved 5")


def test_a_claim_for_one_report_is_for_however_many_there_are(governor, ledger):
    begun(governor, reports=1)
    reports = [Report(score=0.5, number=number) for number in range(1, 4)]
    assert [governor.report("s/1", report) for report in reports] == [Allow()] * 3
    governor.close_sweep("s", {})
    assert amounts(ledger, "train_gflop") == (0, 10, 0)


def test_a_trial_that_died_is_charged_what_its_reports_told_beyond_what_its_driver_knows(governor, ledger):
    grant = begun(governor)
    governor.report("s/1", Report(score=0.5, usage=Usage(reports=3, lease=grant.lease)))
    governor.close_sweep("s", {})
    assert amounts(ledger, "train_gflop")[1] == 8  # up to its next report


def test_flops_told_below_the_arithmetic_are_charged_by_the_arithmetic(governor, ledger):
    grant = begun(governor)
    governor.settle(grant.lease, grant.fence, Usage(reports=4, train_flops=1))
    assert amounts(ledger, "train_gflop")[1] == 8


# --- what an evaluator found


def test_a_capability_over_its_ceiling_is_an_incident_and_the_verdict_on_its_trial(governor, ledger):
    begun(governor)
    verdict = governor.judge_capability("s", "s/1", {"reasoning": 0.96})
    assert verdict.rule == "max_performance.reasoning"
    assert governor.verdict("s/1").rule == verdict.rule
    assert (last(ledger).kind, last(ledger).key, last(ledger).rule) == ("incident", "s/1", verdict.rule)


def test_a_capability_under_its_ceiling_is_recorded_nowhere(governor, ledger):
    before = kinds(ledger)
    assert governor.judge_capability("s", "s/1", {"reasoning": 0.95}) == Allow()
    assert kinds(ledger) == before


def test_an_incident_is_no_verdict_on_its_trial(governor, ledger):
    begun(governor)
    governor.record_incident("s", "s/1", "discrepancy", "reported 0.4, found 0.5")
    assert (last(ledger).kind, last(ledger).sweep, last(ledger).rule) == ("incident", "s", "discrepancy")
    assert "reported 0.4" in last(ledger).detail
    assert governor.verdict("s/1") == Allow()
