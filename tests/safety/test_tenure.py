from contextlib import suppress

import pytest

from safety import GovernorUnreachable, LeaseKeeper, LeaseLost, Measured, Usage
from safety.meter import Counted
from safety.tenure import Tenure
from tests.safety.fakes import GFLOP, FakeAuthority, claim

KEY = "s/t1"


class NoSwitch:
    def arm(self, seconds):
        pass

    def disarm(self):
        pass

    def throw(self):
        raise AssertionError("died")


class FakeMeter:
    def __init__(self):
        self.judges = []

    def begin(self, judge):
        self.judges.append(judge)


@pytest.fixture
def authority():
    return FakeAuthority()


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def make(authority, now):
    tenures = []

    def made(meter=None):
        keeper = LeaseKeeper(authority, NoSwitch(), clock=lambda: now[0])
        tenures.append(Tenure(authority, keeper, meter))
        return tenures[-1]

    yield made
    for tenure in tenures:
        tenure.end()


@pytest.fixture
def tenure(make):
    begun = make()
    begun.begin(KEY, "d", "w")
    return begun


def test_each_report_tells_the_lease_and_what_was_used_under_it(tenure, now):
    now[0] += 1.5
    assert tenure.counted_report()["lease"] == {
        "id": 1, "fence": 1, "train_flops": 2 * GFLOP, "wall_ms": 1500, "gpu_ms": 150, "reports": 1,
    }  # fmt: skip
    assert tenure.counted_report()["lease"]["reports"] == 2


def test_another_lease_counts_from_nothing(tenure):
    tenure.counted_report()
    tenure.begin(KEY, "d2", "w")
    assert tenure.counted_report()["lease"]["reports"] == 1


def test_a_claim_for_one_report_is_charged_whole_and_once(authority, tenure):
    authority.claim = claim(reports=1)
    tenure.begin(KEY, "d", "w")
    for _ in range(3):
        told = tenure.counted_report()["lease"]
        assert (told["reports"], told["train_flops"]) == (1, 10 * GFLOP)


def test_nothing_computes_before_a_lease(make):
    tenure = make()
    assert not tenure.has_begun
    with pytest.raises(LeaseLost, match="no lease is held"), tenure.computing():
        raise AssertionError("computed")


def test_a_trial_that_gets_no_lease_is_refused_and_not_asked_for_again(make, authority):
    authority.silent = LeaseLost("revoked")
    tenure = make()
    with pytest.raises(LeaseLost) as caught:
        tenure.begin(KEY, "d", "w")
    assert tenure.has_begun
    with pytest.raises(LeaseLost, match="revoked"), tenure.computing():
        raise AssertionError("computed")
    assert tenure.refused(caught.value) == {"done": True, "lease_refused": "revoked"}


def test_a_meter_begins_with_each_lease(make):
    meter = FakeMeter()
    tenure = make(meter)
    tenure.begin(KEY, "d", "w")
    tenure.begin(KEY, "d", "w")
    assert meter.judges == [tenure.judge, tenure.judge]


def test_what_is_counted_is_confirmed(tenure, authority):
    tenure.judge(Counted(params=3, forward_flops=4))
    assert authority.asked[-1] == ("confirm", 1, 1, Measured(params=3, forward_flops=4))
    with tenure.computing():
        pass


@pytest.mark.parametrize("error", [LeaseLost("too large"), GovernorUnreachable("silent")])
def test_a_refusal_stays_one_whoever_catches_it(tenure, authority, error):
    authority.silent = error
    refused = pytest.raises(LeaseLost, match=str(error))
    with refused, tenure.computing(), suppress(LeaseLost):
        tenure.judge(Counted(params=3, forward_flops=4))
    authority.silent = None
    told = tenure.refused(LeaseLost("later"))
    assert (told["lease_refused"], told["lease"]["reports"]) == (str(error), 1)
    with pytest.raises(LeaseLost), tenure.computing():
        raise AssertionError("computed")


def test_a_refusal_that_comes_as_another_error_is_a_refusal(tenure, authority):
    authority.silent = LeaseLost("too large")

    def compute():
        with tenure.computing():
            try:
                tenure.judge(Counted(params=3, forward_flops=4))
            except LeaseLost as error:
                raise RuntimeError("in a thread") from error

    with pytest.raises(LeaseLost, match="too large"):
        compute()


def test_an_error_of_the_trial_is_its_own(tenure):
    with pytest.raises(ZeroDivisionError), tenure.computing():
        raise ZeroDivisionError


def test_what_can_not_be_counted_is_confirmed_as_that_and_never_as_nothing(tenure, authority):
    tenure.judge(Counted(params=3, forward_flops=None, reason="item"))
    assert authority.asked[-1] == ("confirm", 1, 1, Measured(params=3, forward_flops=None, reason="item"))


def test_a_trial_that_fails_is_settled_up_to_its_next_report(tenure, authority, now):
    tenure.counted_report()
    now[0] += 1
    tenure.settle_cut_short()
    usage = Usage(train_flops=4 * GFLOP, wall_ms=1000, gpu_ms=100, reports=2)
    assert authority.asked[-1] == ("settle", 1, 1, usage)
    assert not tenure.has_begun
    tenure.settle_cut_short()
    assert len(authority.asked) == 2


def test_a_failure_that_can_not_be_settled_is_left_to_be_reaped(tenure, authority):
    authority.silent = GovernorUnreachable("silent")
    tenure.settle_cut_short()
    assert not tenure.has_begun


def test_a_trial_whose_time_is_over_between_two_steps_tells_no_more_time_than_it_claimed(tenure, now):
    tenure.counted_report()
    now[0] += 60.5
    with pytest.raises(LeaseLost) as caught, tenure.computing():
        raise AssertionError("computed")
    told = tenure.refused(caught.value)["lease"]
    assert (told["wall_ms"], told["gpu_ms"]) == (60_000, 6_000)


def test_a_failure_after_the_last_report_counts_no_further_one(tenure, authority):
    for _ in range(5):
        tenure.counted_report()
    tenure.settle_cut_short()
    assert authority.asked[-1][-1] == Usage(train_flops=10 * GFLOP, reports=5)


def test_a_refusal_after_the_last_report_counts_no_further_one_and_hides_none_too_many(tenure):
    for reports in (5, 6):
        while tenure._reports < reports:
            tenure.counted_report()
        assert tenure._grant.next_report(tenure._reports) == reports
    assert tenure.refused(LeaseLost("over"))["lease"]["reports"] == 6
