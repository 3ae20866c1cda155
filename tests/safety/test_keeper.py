import threading
import time

import pytest

from safety import GovernorUnreachable, Grant, LeaseKeeper, LeaseLost
from safety.errors import LeaseDenied, LeaseSettled
from safety.resources import ALLOWANCE_BYTES
from tests.safety.fakes import FakeAuthority, claim, dies, measured


class FakeSwitch:
    def __init__(self):
        self.armed, self.thrown, self.log = None, threading.Event(), []

    def arm(self, seconds):
        self.armed = seconds
        self.log.append(seconds)

    def disarm(self):
        self.armed = None

    def throw(self):
        self.thrown.set()


class Seconds:
    """A monotonic clock that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def switch():
    return FakeSwitch()


@pytest.fixture
def keeper_of(seconds, switch):
    """A keeper of a lease whose renewals are answered as a test says; renewing comes every 5 ms."""
    made = []

    def make(*renewals, ttl_ms=15, wall_ms=60_000):
        authority = FakeAuthority(renewals=list(renewals), ttl_ms=ttl_ms, claim=claim(wall_ms=wall_ms))
        keeper = LeaseKeeper(authority, switch, seconds)
        keeper.authority = authority
        made.append(keeper)
        return keeper

    yield make
    for keeper in made:
        keeper.end()


def begin(keeper):
    return keeper.begin("s/1", "d1", "w1", measured(claim()))


def eventually(condition):
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_nothing_is_computed_without_a_lease(keeper_of, switch):
    keeper = keeper_of()
    with pytest.raises(LeaseLost, match="the lease is over"), keeper.computing():
        raise AssertionError("computed")
    with pytest.raises(LeaseLost, match="no lease is held"):
        _ = keeper.grant
    assert switch.log == []


def test_a_lease_that_is_refused_is_not_held(keeper_of):
    keeper = keeper_of()
    keeper.authority.silent = LeaseLost("over a ceiling")
    with pytest.raises(LeaseLost, match="over a ceiling"):
        begin(keeper)
    with pytest.raises(LeaseLost), keeper.computing():
        raise AssertionError("computed")


def test_the_switch_is_armed_while_a_lease_is_held_computing_or_not(keeper_of, switch):
    keeper = keeper_of(ttl_ms=15_000)
    begin(keeper)
    assert switch.armed == pytest.approx(15)
    with pytest.raises(ValueError, match="oops"), keeper.computing():
        raise ValueError("oops")
    assert switch.armed == pytest.approx(15)
    keeper.end()
    assert switch.armed is None


def test_what_is_computed_within_computing_ends_by_itself(keeper_of, switch):
    keeper = keeper_of(LeaseLost("revoked"), ttl_ms=150)
    begin(keeper)
    with keeper.computing():
        with keeper.computing():
            pass
        assert switch.thrown.wait(5)


def test_the_deadline_counts_from_before_the_lease_was_asked_for(keeper_of, seconds, switch, monkeypatch):
    keeper = keeper_of(ttl_ms=15_000)
    activate = keeper.authority.activate

    def slow(*arguments):
        seconds.now += 6
        return activate(*arguments)

    monkeypatch.setattr(keeper.authority, "activate", slow)
    begin(keeper)
    with keeper.computing():
        assert switch.armed == pytest.approx(9)


def test_the_deadline_counts_from_before_a_renewal_was_sent(keeper_of, seconds, switch, monkeypatch):
    keeper = keeper_of(15_000)
    renew, answered = keeper.authority.renew, threading.Event()

    def slow(*arguments):
        if answered.is_set():
            raise GovernorUnreachable("silent")
        ttl_ms = renew(*arguments)
        seconds.now += 6
        answered.set()
        return ttl_ms

    monkeypatch.setattr(keeper.authority, "renew", slow)
    begin(keeper)
    answered.wait(5)
    eventually(lambda: keeper._deadline > 101)
    with keeper.computing():
        assert switch.armed == pytest.approx(9)


def test_nothing_is_computed_from_the_deadline_on(keeper_of, seconds):
    keeper = keeper_of(ttl_ms=15_000)
    begin(keeper)
    seconds.now += 15
    with pytest.raises(LeaseLost, match="the lease is over"), keeper.computing():
        raise AssertionError("computed")


def test_the_deadline_never_lies_beyond_the_claims_time(keeper_of, switch):
    keeper = keeper_of(15_000, 15_000, ttl_ms=15, wall_ms=2_000)
    begin(keeper)
    with keeper.computing():
        eventually(lambda: len(keeper.authority.renewals) == 0 and len(switch.log) >= 3)
        assert max(switch.log) == pytest.approx(2)
        switch.thrown.wait(5)


def test_a_renewal_while_computing_arms_the_switch_anew(keeper_of, switch):
    keeper = keeper_of(8_000)
    begin(keeper)
    with keeper.computing():
        eventually(lambda: switch.log[-1] == pytest.approx(8))
        switch.thrown.wait(5)


def test_a_lease_lost_while_computing_ends_the_process(keeper_of, switch):
    keeper = keeper_of(LeaseLost("revoked: a human said so"), ttl_ms=150)
    begin(keeper)
    with keeper.computing():
        assert switch.thrown.wait(5)


def test_a_lease_that_is_lost_while_nothing_is_computed_ends_the_process_too(keeper_of, switch):
    keeper = keeper_of(LeaseLost("revoked: a human said so"))
    begin(keeper)
    assert switch.thrown.wait(5)
    with pytest.raises(LeaseLost, match="a human said so"), keeper.computing():
        raise AssertionError("computed")


def test_a_lease_that_was_settled_leaves_its_process_for_another_one(keeper_of, switch):
    keeper = keeper_of(LeaseSettled("settled"))
    begin(keeper)
    eventually(lambda: keeper._lost)
    assert (switch.thrown.is_set(), switch.armed) == (False, None)
    with pytest.raises(LeaseLost, match="settled"), keeper.computing():
        raise AssertionError("computed")


def test_a_lease_that_was_settled_while_something_is_computed_ends_the_process(keeper_of, switch):
    keeper = keeper_of(LeaseSettled("settled"), ttl_ms=150)
    begin(keeper)
    with keeper.computing():
        assert switch.thrown.wait(5)


def test_a_lease_that_its_own_report_ended_leaves_its_process_its_term_and_no_more(keeper_of, switch):
    keeper = keeper_of(*[LeaseDenied("revoked: score is nan")] * 10**6)
    begin(keeper)
    eventually(lambda: len(keeper.authority.asked) > 3)
    assert (switch.thrown.is_set(), len(switch.log)) == (False, 1)
    assert switch.armed is not None
    with pytest.raises(LeaseLost, match="score is nan"), keeper.computing():
        raise AssertionError("computed")


def test_a_lease_that_its_own_report_ended_leaves_its_process_for_another_one_once_it_is_settled(
    keeper_of, switch
):
    keeper = keeper_of(LeaseDenied("revoked: score is nan"), LeaseSettled("settled"))
    begin(keeper)
    eventually(lambda: switch.armed is None)
    assert not switch.thrown.is_set()


def test_a_lease_that_its_own_report_ended_ends_a_process_that_computes_on(keeper_of, switch):
    keeper = keeper_of(LeaseDenied("revoked: score is nan"), ttl_ms=150)
    begin(keeper)
    with keeper.computing():
        assert switch.thrown.wait(5)


def test_a_lease_that_is_lost_after_its_own_report_ended_it_ends_its_process(keeper_of, switch):
    begin(keeper_of(LeaseDenied("revoked: score is nan"), LeaseLost("the sweep is killed")))
    assert switch.thrown.wait(5)


def test_a_process_that_has_nothing_more_to_do_has_the_time_of_a_lease_left(keeper_of, seconds, switch):
    keeper = keeper_of(ttl_ms=15_000)
    begin(keeper)
    seconds.now += 14
    keeper.leave()
    assert switch.armed == 15
    with pytest.raises(LeaseLost), keeper.computing():
        raise AssertionError("computed")


def test_a_process_that_never_held_a_lease_has_time_to_end_by_itself(keeper_of, switch):
    keeper_of().leave()
    assert switch.armed == 15


def test_what_nobody_looks_after_takes_no_lease(keeper_of):
    keeper = keeper_of()
    keeper._supervised = lambda: False
    with pytest.raises(LeaseLost, match="what has started this process is gone or stands still"):
        begin(keeper)
    assert keeper.authority.asked == []


def test_while_nobody_looks_after_a_process_its_lease_is_not_renewed(keeper_of, switch):
    keeper = keeper_of(8_000)
    begin(keeper)
    keeper._supervised = lambda: False
    with keeper.computing():
        time.sleep(0.05)
        assert switch.log == [pytest.approx(0.015)]
        keeper._supervised = lambda: True
        eventually(lambda: len(switch.log) == 2)
        switch.thrown.wait(5)


def test_silence_keeps_the_timer_as_it_is_and_a_later_answer_extends_it(keeper_of, switch):
    keeper = keeper_of(GovernorUnreachable("silent"), GovernorUnreachable("silent"), 8_000)
    begin(keeper)
    with keeper.computing():
        eventually(lambda: len(switch.log) == 2)
        switch.thrown.wait(5)
    assert switch.log == [pytest.approx(0.015), pytest.approx(8)]


def test_an_ended_lease_is_renewed_no_more(keeper_of, switch):
    keeper = keeper_of(*[15_000] * 1000)
    begin(keeper)
    eventually(lambda: len(keeper.authority.renewals) < 999)
    keeper.end()
    time.sleep(0.02)
    left = len(keeper.authority.renewals)
    time.sleep(0.05)
    assert len(keeper.authority.renewals) == left
    with pytest.raises(LeaseLost), keeper.computing():
        raise AssertionError("computed")


@pytest.mark.parametrize("answer", [15_000, LeaseLost("revoked")])
def test_an_answer_that_comes_after_the_end_changes_nothing(keeper_of, switch, monkeypatch, answer):
    keeper = keeper_of()
    sent, go, done = threading.Event(), threading.Event(), threading.Event()

    def slow(*_):
        sent.set()
        go.wait(5)
        done.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(keeper.authority, "renew", slow)
    begin(keeper)
    thread = next(t for t in threading.enumerate() if t.name == "lease-keeper")
    assert sent.wait(5)
    before = keeper._deadline
    keeper.end()
    go.set()
    assert done.wait(5)
    thread.join(5)
    assert (keeper._deadline, keeper._lost) == (before, "")
    assert not switch.thrown.is_set()


def test_a_new_lease_ends_the_one_before(keeper_of, seconds):
    keeper = keeper_of(ttl_ms=15_000)
    begin(keeper)
    first = next(t for t in threading.enumerate() if t.name == "lease-keeper")
    seconds.now += 20
    assert begin(keeper) == keeper.grant
    first.join(2)
    assert not first.is_alive()
    assert keeper.elapsed_ms() == 0
    seconds.now += 0.5
    assert keeper.elapsed_ms() == 500
    with keeper.computing():
        pass


# --- with the kernel's timer, in real processes


LEASED = """
import sys
sys.path.insert(0, ".")
from safety import LeaseKeeper, KernelTimer, GovernorUnreachable
from tests.safety.fakes import FakeAuthority, claim, measured
authority = FakeAuthority(renewals=[GovernorUnreachable("silent")] * 1000, ttl_ms=600)
keeper = LeaseKeeper(authority, KernelTimer())
keeper.begin("s/1", "d1", "w1", measured(claim()))
with keeper.computing():
    print("spinning", flush=True)
    sum(range(10**12))
"""


@pytest.mark.alone
@pytest.mark.processes
def test_a_worker_whose_governor_is_silent_dies_at_the_end_of_its_lease_though_it_holds_the_gil():
    code, seconds = dies(LEASED, within=10)
    assert code == -9
    assert seconds < 2


@pytest.mark.alone
@pytest.mark.processes
def test_a_worker_whose_lease_is_revoked_dies_before_its_end():
    revoked = LEASED.replace('[GovernorUnreachable("silent")] * 1000, ttl_ms=600', "[], ttl_ms=1500")
    code, seconds = dies(revoked.replace("sum(range(10**12))", "import time; time.sleep(60)"), within=10)
    assert code == -9
    assert seconds < 1.3


def joined(keeper, sharers=2, elapsed_ms=0, ttl_ms=15_000):
    grant = Grant(lease=7, fence=2, ttl_ms=ttl_ms, claim=keeper.authority.claim)
    return keeper.join(grant, elapsed_ms=elapsed_ms, sharers=sharers)


def test_a_process_joins_another_ones_lease_by_renewing_it_for_itself(keeper_of, seconds, switch):
    keeper = keeper_of(9_000)
    grant = joined(keeper)
    assert keeper.authority.asked == [("renew", 7, 2)]
    assert (grant.lease, grant.fence, grant.ttl_ms) == (7, 2, 9_000)
    assert switch.armed == 9.0
    with keeper.computing():
        seconds.now += 9.0
    with pytest.raises(LeaseLost, match="the lease is over"), keeper.computing():
        raise AssertionError("computed")


def test_a_joined_lease_ends_when_the_claims_time_does_counted_from_its_begin(keeper_of, switch):
    keeper = keeper_of(9_000, wall_ms=60_000)
    joined(keeper, elapsed_ms=58_000)
    assert switch.armed == pytest.approx(2.0)
    assert keeper.elapsed_ms() == 58_000


def test_a_lease_that_is_over_is_not_joined(keeper_of, switch):
    keeper = keeper_of(LeaseLost("revoked"))
    with pytest.raises(LeaseLost, match="revoked"):
        joined(keeper)
    with pytest.raises(LeaseLost), keeper.computing():
        raise AssertionError("computed")
    assert switch.armed is None


def test_a_process_that_nobody_looks_after_joins_nothing(keeper_of):
    keeper = keeper_of(9_000)
    keeper._supervised = lambda: False
    with pytest.raises(LeaseLost, match="lease 7: what has started this process is gone"):
        joined(keeper)
    assert keeper.authority.asked == []


def test_each_who_joins_may_grow_by_its_part_of_the_claims_memory(keeper_of):
    assert joined(keeper_of(9_000), sharers=3).claim.memory_bytes == 134  # of 400


def test_who_joined_and_grows_by_more_than_its_part_is_told_of_as_if_all_did(keeper_of, switch):
    keeper = keeper_of(9_000)
    grown = iter([0] + 1000 * [ALLOWANCE_BYTES + 201])
    keeper._memory = lambda: next(grown)
    keeper.authority.claim = claim(gpu_ms=0)
    joined(keeper)
    eventually(lambda: ("observe", 7, 2, 2 * (ALLOWANCE_BYTES + 201)) in keeper.authority.asked)
