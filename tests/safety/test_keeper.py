import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from safety import GovernorUnreachable, KernelTimer, LeaseKeeper, LeaseLost
from tests.safety.fakes import FakeAuthority, claim, measured


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


def test_computing_arms_the_switch_for_what_is_left_and_disarms_it_after(keeper_of, seconds, switch):
    keeper = keeper_of(ttl_ms=15_000)
    begin(keeper)
    seconds.now += 4
    with keeper.computing():
        assert switch.armed == pytest.approx(11)
    assert switch.armed is None


def test_the_switch_is_disarmed_when_computing_fails(keeper_of, switch):
    keeper = keeper_of(ttl_ms=15_000)
    begin(keeper)
    with pytest.raises(ValueError, match="oops"), keeper.computing():
        raise ValueError("oops")
    assert switch.armed is None


def test_the_outermost_computing_disarms(keeper_of, switch):
    keeper = keeper_of(ttl_ms=15_000)
    begin(keeper)
    with keeper.computing():
        with keeper.computing():
            pass
        assert switch.armed
    assert switch.armed is None


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
    keeper = keeper_of(LeaseLost("revoked: a human said so"), ttl_ms=30)
    begin(keeper)
    with keeper.computing():
        assert switch.thrown.wait(5)


def test_a_lease_lost_while_idle_ends_no_process_and_nothing_is_computed_any_more(keeper_of, switch):
    keeper = keeper_of(LeaseLost("revoked: a human said so"))
    begin(keeper)
    eventually(lambda: keeper._lost)
    assert not switch.thrown.is_set()
    with pytest.raises(LeaseLost, match="a human said so"), keeper.computing():
        raise AssertionError("computed")


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


# --- the kernel's timer, in real processes


def dies(program, within):
    """Run a program in a process of its own; its exit code, and how long after its first line it ended."""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "spinning\n"
        began = time.monotonic()
        code = process.wait(within)
        return code, time.monotonic() - began
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


ARMED = """
import re, signal, time
from safety import KernelTimer
timer = KernelTimer()
timer.arm(0.25)
print("spinning", flush=True)
"""


@pytest.mark.parametrize(
    "spin",
    [
        "sum(range(10**12))",
        "re.match('(a+)+$', 'a' * 60 + 'b')",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass",
        "time.sleep(60)",
        "for n in signal.valid_signals() - {9, 19}: signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)",
        "import ctypes\nctypes.PyDLL(None).sleep(60)",
        "signal.setitimer(signal.ITIMER_REAL, 0)\ntime.sleep(60)",
    ],
)
def test_a_process_that_never_comes_back_to_python_dies_at_its_deadline(spin):
    code, seconds = dies(ARMED + spin, within=10)
    assert code == -9
    assert 0.1 < seconds < 2


def test_a_timer_that_is_armed_anew_counts_anew():
    _, seconds = dies(ARMED + "time.sleep(0.1); timer.arm(0.5); time.sleep(60)", within=10)
    assert 0.5 < seconds < 2.5


def test_a_timer_that_is_disarmed_ends_nothing():
    code, seconds = dies(ARMED + "timer.disarm(); time.sleep(0.4)", within=10)
    assert code == 0
    assert seconds > 0.35


def test_a_deadline_that_is_past_already_ends_the_process_at_once():
    code, seconds = dies(ARMED + "timer.arm(60); timer.arm(-3); time.sleep(60)", within=10)
    assert (code, seconds < 2) == (-9, True)


def test_a_thrown_switch_is_a_kill():
    code, _ = dies(ARMED + "timer.throw()", within=10)
    assert code == -9


def test_a_forked_child_has_no_deadline_and_can_have_one_of_its_own():
    own = "import os\nchild = os.fork()\nif child: raise SystemExit(os.waitpid(child, 0)[1])\n"
    code, _ = dies(ARMED + "timer.arm(9)\n" + own + "time.sleep(0.5)", within=10)
    assert code == 0
    code, seconds = dies(ARMED + "timer.arm(9)\n" + own + "timer.arm(0.1); time.sleep(60)", within=10)
    assert (code, seconds < 2) == (9, True)  # how the child ended


def test_this_process_lives_on_when_its_timer_was_disarmed_in_time():
    timer = KernelTimer()
    timer.arm(30)
    timer.arm(60)
    timer.disarm()


def test_where_the_kernel_has_no_such_timer_the_alarm_stands_in(monkeypatch):
    timer = KernelTimer()
    monkeypatch.setattr(timer, "_is_posix", False)
    timer.arm(60)
    assert 59 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
    timer.disarm()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_kernel_that_gives_no_timer_is_told():
    timer = KernelTimer()
    timer._check(0)
    with pytest.raises(OSError, match="kernel timer"):
        timer._check(-1)


def test_a_thrown_switch_kills_this_process_and_no_other(monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda *what: killed.append(what))
    KernelTimer().throw()
    assert killed == [(os.getpid(), signal.SIGKILL)]


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


def test_a_worker_whose_governor_is_silent_dies_at_the_end_of_its_lease_though_it_holds_the_gil():
    code, seconds = dies(LEASED, within=10)
    assert code == -9
    assert seconds < 2


def test_a_worker_whose_lease_is_revoked_dies_before_its_end():
    revoked = LEASED.replace('[GovernorUnreachable("silent")] * 1000, ttl_ms=600', "[], ttl_ms=1500")
    code, seconds = dies(revoked.replace("sum(range(10**12))", "import time; time.sleep(60)"), within=10)
    assert code == -9
    assert seconds < 1.3
