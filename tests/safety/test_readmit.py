"""A trial that was paused, changed or restarted gets another lease, and no more than one at a time."""

import pytest

from safety import Allow, Deny, Hold, KeyReused, LeaseLost, Measured, Report, Usage, audit
from tests.safety.fakes import GFLOP, amounts, kinds, limits, measured, request


def begin(ledger, asked, holder="w"):
    return ledger.activate(asked.key, asked.digest, holder)


def settled(ledger, asked, reports=2):
    grant = begin(ledger, asked)
    ledger.settle(grant.lease, grant.fence, Usage(train_flops=0, reports=reports))
    return grant


def test_a_trial_that_is_not_known_is_admitted_as_by_a_reservation(ledger):
    assert ledger.readmit(request()) == Allow()
    assert ledger.lease("s/1").key == "s/1"
    assert amounts(ledger, "train_gflop") == (10, 0, 0)


def test_the_same_request_again_is_answered_by_the_lease_that_it_has(ledger):
    ledger.readmit(request())
    assert ledger.readmit(request()) == Allow()
    assert kinds(ledger).count("reserve") == 1


def test_what_was_reserved_for_another_configuration_makes_way(ledger):
    ledger.reserve(request())
    assert ledger.readmit(request(digest="d2", train_flops=20 * GFLOP)) == Allow()
    newest = ledger.lease("s/1")
    assert (newest.key, newest.trial, newest.digest, newest.state) == ("s/1#2", "s/1", "d2", "reserved")
    assert kinds(ledger)[-2:] == ["void", "reserve"]
    assert amounts(ledger, "train_gflop") == (20, 0, 0)
    assert amounts(ledger, "trials") == (1, 0, 0)


def test_a_trial_with_other_resources_alone_makes_way_too(ledger):
    ledger.reserve(request())
    assert ledger.readmit(request(gpu_ms=12_000)) == Allow()
    assert amounts(ledger, "gpu_ms") == (12_000, 0, 0)


@pytest.mark.parametrize("digest", ["d1", "d2"])
def test_a_trial_whose_lease_is_active_waits_whatever_it_asks_for(ledger, digest):
    ledger.reserve(request())
    begin(ledger, request())
    verdict = ledger.readmit(request(digest=digest))
    assert (type(verdict), verdict.rule) == (Hold, "lease")
    assert "s/1: its lease is active" in verdict.reason


def test_a_trial_that_was_settled_gets_another_lease_and_its_old_one_nothing(ledger):
    ledger.readmit(request())
    first = settled(ledger, request(), reports=2)
    assert ledger.readmit(request(digest="d2")) == Allow()
    second = begin(ledger, request(digest="d2"))
    assert second.lease != first.lease
    with pytest.raises(LeaseLost):
        ledger.renew(first.lease, first.fence)
    ledger.settle(second.lease, second.fence, Usage(reports=3))
    assert amounts(ledger, "train_gflop") == (0, 4 + 6, 0)
    assert amounts(ledger, "trials") == (0, 1, 0)


def test_a_trial_counts_once_however_often_it_is_tried(ledger):
    for _ in range(12):  # the budget has room for ten
        assert ledger.readmit(request(train_flops=0)) == Allow()
        settled(ledger, request())
    assert amounts(ledger, "trials") == (0, 1, 0)
    assert ledger.lease("s/1").key == "s/1#12"


def test_a_worker_that_is_silent_is_waited_for_until_its_lease_is_forfeited(governor, ledger, clock):
    governor.readmit(request())
    begin(ledger, request())
    clock.pass_ms(20_000)
    assert isinstance(governor.readmit(request()), Hold)
    clock.pass_ms(1)
    assert governor.readmit(request()) == Allow()
    assert kinds(ledger)[-2:] == ["forfeit", "reserve"]
    # of ten that are spent, it can have computed the first of five reports
    assert amounts(ledger, "train_gflop") == (2, 10, 0)


def lost(governor, ledger, clock, *, reports, seconds=20):
    """A worker that was heard so many times and then no more: its whole hold is spent."""
    grant = begin(ledger, request())
    for _ in range(reports):
        governor.report("s/1", Report(score=0.5, usage=Usage(lease=grant.lease)))
    clock.pass_ms(seconds * 1000 + 1)
    ledger.reap()
    return grant


@pytest.mark.parametrize("reports", [0, 1, 2, 3, 4])
def test_a_trial_that_goes_on_after_its_worker_was_lost_is_charged_what_was_computed_twice_alone(
    governor, ledger, clock, reports
):
    governor.readmit(request())
    lost(governor, ledger, clock, reports=reports)
    assert amounts(ledger, "train_gflop") == (0, 10, 0)
    assert governor.readmit(request()) == Allow()
    grant = begin(ledger, request())
    ledger.settle(grant.lease, grant.fence, Usage(reports=5 - reports))
    # the report that was under way, and the five that the trial makes
    assert amounts(ledger, "train_gflop") == (0, 2 + 10, 0)
    assert amounts(ledger, "trials") == (0, 1, 0)


def test_a_trial_that_is_lost_twice_is_charged_no_report_twice_but_those_under_way(governor, ledger, clock):
    governor.readmit(request())
    lost(governor, ledger, clock, reports=1)
    governor.readmit(request())
    lost(governor, ledger, clock, reports=2)
    assert amounts(ledger, "train_gflop") == (0, 10 + 4, 0)  # its second lease held no more
    governor.readmit(request())
    grant = begin(ledger, request())
    ledger.settle(grant.lease, grant.fence, Usage(reports=2))
    assert amounts(ledger, "train_gflop") == (0, 10 + 2 + 2, 0)


def test_what_a_lost_attempt_has_paid_is_not_lost_where_the_next_one_is_paused_or_never_begins(
    governor, ledger, clock
):
    governor.readmit(request())
    lost(governor, ledger, clock, reports=0)
    governor.readmit(request())
    ledger.void("s/1", "removed")
    governor.readmit(request())
    settled(ledger, request(), reports=1)
    governor.readmit(request())
    settled(ledger, request(), reports=4)
    assert amounts(ledger, "train_gflop") == (0, 2 + 10, 0)


def test_what_was_spent_stays_spent_where_a_trial_that_was_lost_ends_early(governor, ledger, clock):
    governor.readmit(request())
    lost(governor, ledger, clock, reports=0)
    governor.readmit(request())
    settled(ledger, request(), reports=1)
    assert amounts(ledger, "train_gflop") == (0, 10, 0)
    governor.readmit(request())
    grant = begin(ledger, request())
    ledger.settle(grant.lease, grant.fence, Usage(train_flops=99 * GFLOP, reports=5))
    assert amounts(ledger, "train_gflop")[2] > 0  # more than it held is an overrun as ever
    assert ledger.sweep("s").state == "frozen"


def test_the_time_of_a_lost_worker_counts_until_its_deadline(governor, ledger, clock):
    governor.readmit(request())
    lost(governor, ledger, clock, reports=0)
    governor.readmit(request())
    assert amounts(ledger, "wall_ms") == (15_000, 60_000, 0)
    assert amounts(ledger, "gpu_ms") == (1_500, 6_000, 0)


def test_a_claim_for_one_report_is_computed_whole_for_all_that_is_known(governor, ledger, clock):
    asked = request(reports=1)
    governor.readmit(asked)
    begin(ledger, asked)
    clock.pass_ms(20_001)
    governor.readmit(asked)
    assert amounts(ledger, "train_gflop") == (10, 10, 0)


def test_a_trial_that_failed_may_be_tried_again(governor, ledger):
    governor.readmit(request())
    settled(ledger, request())
    governor.fail("s", "s/1", "ValueError: no")
    assert governor.readmit(request()) == Allow()
    assert governor.verdict("s/1") == Allow()


def test_a_trial_that_was_refused_is_refused_for_good(governor, ledger):
    governor.readmit(request())
    grant = begin(ledger, request())
    governor.report("s/1", Report(score=float("nan")))
    ledger.settle(grant.lease, grant.fence, Usage(reports=1))
    verdict = governor.readmit(request(digest="d2"))
    assert (type(verdict), verdict.rule) == (Deny, "finite_score")


def test_a_change_over_a_ceiling_is_denied_recorded_and_remembered(governor, ledger):
    governor.readmit(request())
    settled(ledger, request())
    verdict = governor.readmit(request(digest="d2", params=1001))
    assert (type(verdict), verdict.rule) == (Deny, "max_params")
    assert kinds(ledger)[-1] == "deny"
    assert governor.verdict("s/1").rule == "max_params"
    assert governor.readmit(request()).rule == "max_params"


@pytest.mark.parametrize(("held", "kind"), [(95, Hold), (0, Deny)])
def test_a_change_that_a_budget_has_no_room_for_waits_or_is_denied(governor, ledger, held, kind):
    governor.readmit(request())
    if held:
        ledger.reserve(request("s/2", train_flops=90 * GFLOP))
    else:
        ledger.reserve(request("s/2", train_flops=90 * GFLOP))
        settled(ledger, request("s/2"), reports=5)
    verdict = governor.readmit(request(digest="d2", train_flops=11 * GFLOP))
    assert (type(verdict), verdict.rule) == (kind, "budget.train_gflop")
    assert amounts(ledger, "train_gflop")[0] == (90 if held else 0)  # what it held before is given back


@pytest.mark.parametrize(
    "end", [lambda ledger: ledger.freeze("s", "no"), lambda ledger: ledger.close_sweep("s", {})]
)
def test_a_sweep_that_is_not_open_readmits_nothing(ledger, end):
    ledger.reserve(request())
    end(ledger)
    assert isinstance(ledger.readmit(request()), Deny)


def test_a_key_of_another_sweep_is_an_error(ledger):
    ledger.open_sweep("other", limits())
    ledger.reserve(request())
    with pytest.raises(KeyReused, match="another sweep"):
        ledger.readmit(request(sweep="other"))


def test_admission_stays_strict_after_a_change(governor, ledger):
    governor.readmit(request())
    governor.readmit(request(digest="d2"))
    assert governor.admit(request(digest="d2")) == Allow()
    with pytest.raises(KeyReused):
        governor.admit(request())


def test_a_report_under_an_earlier_lease_is_denied(governor, ledger):
    governor.readmit(request())
    first = settled(ledger, request())
    governor.readmit(request())
    second = begin(ledger, request())
    assert governor.report("s/1", Report(score=0.5, usage=Usage(lease=second.lease, reports=1))) == Allow()
    late = governor.report("s/1", Report(score=0.5, usage=Usage(lease=first.lease, reports=1)))
    assert f"reported under lease {first.lease}, which is over" in late.reason


def test_a_sweep_that_is_closed_charges_a_lease_only_for_what_was_used_under_it(ledger):
    ledger.readmit(request())
    first = settled(ledger, request(), reports=4)
    ledger.readmit(request())
    begin(ledger, request())
    told = {"s/1": Usage(lease=first.lease, train_flops=8 * GFLOP, reports=4)}
    ledger.close_sweep("s", told)
    assert amounts(ledger, "train_gflop") == (0, 8 + 2, 0)  # one report more was under way
    assert audit.verify(ledger.audit()) is None


# --- what was built


def test_what_was_built_as_priced_or_smaller_may_run(governor, ledger):
    governor.readmit(request())
    grant = governor.activate("s/1", "d1", "w", None)
    governor.confirm(grant.lease, grant.fence, measured(grant.claim))
    governor.confirm(grant.lease, grant.fence, Measured(params=1, forward_flops=1))
    assert ledger.lease("s/1").state == "active"


@pytest.mark.parametrize(
    ("built", "rule", "reason"),
    [
        ({"params": 101}, "as_priced", "params: built 101, priced 100"),
        ({"forward_flops": 201}, "as_priced", "forward_flops: built 201, priced 200"),
        ({"params": 1001}, "max_params", "1,001 parameters is over the ceiling of 1,000"),
        ({"forward_flops": 10_001}, "max_flops", "10,001 FLOPs per forward pass is over"),
    ],
)
def test_what_was_built_larger_is_an_incident_and_loses_its_lease(governor, ledger, built, rule, reason):
    governor.readmit(request())
    grant = governor.activate("s/1", "d1", "w", None)
    with pytest.raises(LeaseLost, match=reason):
        governor.confirm(grant.lease, grant.fence, Measured(**{"params": 1, "forward_flops": 1, **built}))
    assert kinds(ledger)[-2:] == ["incident", "revoke"]
    assert governor.verdict("s/1").rule == rule
    with pytest.raises(LeaseLost, match="revoked"):
        governor.renew(grant.lease, grant.fence)


def test_whoever_holds_no_active_lease_can_confirm_nothing(governor, ledger):
    governor.readmit(request())
    grant = settled(ledger, request())
    for fence in (grant.fence, grant.fence + 1):
        with pytest.raises(LeaseLost):
            governor.confirm(grant.lease, fence, Measured(params=1, forward_flops=1))


@pytest.mark.parametrize(("told", "runs"), [(9_999, True), (10_000, False)])
def test_what_can_not_be_counted_runs_only_where_its_flops_were_told_under_the_ceiling(governor, told, runs):
    governor.readmit(request(forward_flops=told))
    grant = governor.activate("s/1", "d1", "w", None)
    unknown = Measured(params=100, forward_flops=None, reason="item")
    if runs:
        governor.confirm(grant.lease, grant.fence, unknown)
        with pytest.raises(LeaseLost, match="params: built 101"):
            governor.confirm(grant.lease, grant.fence, Measured(params=101, forward_flops=None))
        return
    with pytest.raises(LeaseLost, match=r"its model can't be measured: item; tell forward_flops.* by cost="):
        governor.confirm(grant.lease, grant.fence, unknown)
    assert governor.verdict("s/1").rule == "unmeasured"


def test_a_worker_of_an_earlier_lease_can_not_take_the_present_one_away(governor, ledger, clock):
    governor.readmit(request())
    first = governor.activate("s/1", "d1", "w", None)
    clock.pass_ms(30_000)
    governor.readmit(request())
    second = governor.activate("s/1", "d1", "w2", None)
    with pytest.raises(LeaseLost):
        governor.confirm(first.lease, first.fence, Measured(params=1001, forward_flops=None))
    assert ledger.lease("s/1").state == "active"
    assert governor.renew(second.lease, second.fence) > 0


def test_what_a_closed_sweep_refused_is_admitted_when_it_is_open_again(governor, ledger):
    bound = ledger.sweep("s").limits
    governor.readmit(request())
    settled(ledger, request())
    governor.close_sweep("s", {})
    assert governor.readmit(request()).rule == "closed"
    assert kinds(ledger)[-1] == "deny"
    governor.open_sweep("s", bound)
    assert governor.verdict("s/1") == Allow()
    assert governor.readmit(request()) == Allow()


def test_what_a_budget_had_no_room_for_may_ask_again_for_less(governor, ledger):
    governor.readmit(request())
    settled(ledger, request())
    ledger.reserve(request("s/2", train_flops=90 * GFLOP))
    settled(ledger, request("s/2"), reports=5)
    assert governor.readmit(request(train_flops=11 * GFLOP)).rule == "budget.train_gflop"
    assert governor.readmit(request(train_flops=1 * GFLOP)) == Allow()
