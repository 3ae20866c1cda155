"""What a worker really takes of its machine's memory."""

import subprocess
import sys
import threading
import time

import pytest

from safety import Allow, Deny, GovernorUnreachable, LeaseKeeper, LeaseLost
from safety.resources import ALLOWANCE_BYTES, is_over, resident_bytes, within_memory
from tests.safety.fakes import FakeAuthority, claim, kinds, limits, measured, request
from tests.safety.test_keeper import FakeSwitch, begin, eventually

MB = 10**6
LOOK = 0.01
MOST = claim().memory_bytes + ALLOWANCE_BYTES
HOLDS_60_MB = "import sys; held = b'x' * 60_000_000; print(flush=True); sys.stdin.read()"


def test_memory_that_is_written_is_counted():
    before = resident_bytes()
    held = bytearray(b"x") * (100 * MB)
    assert 90 * MB < resident_bytes() - before < 130 * MB
    del held


def test_what_a_child_and_its_child_take_for_themselves_is_counted():
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDS_60_MB!r}])"
    before = resident_bytes()
    child = subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline()
        assert 55 * MB < resident_bytes() - before < 120 * MB
    finally:
        child.communicate()
    assert resident_bytes() - before < 40 * MB


def test_exactly_the_claim_and_what_any_process_may_take_is_allowed_and_a_byte_more_is_not():
    assert not is_over(claim(), MOST)
    assert within_memory(limits(), claim(), grown_bytes=MOST) == Allow()
    verdict = within_memory(limits(), claim(), grown_bytes=MOST + 1)
    assert (type(verdict), verdict.rule) == (Deny, "within_memory")
    assert verdict.reason.startswith(f"memory grew by {MOST + 1:,} bytes, reserved 400 ")


# --- the governor


def test_memory_over_the_claim_is_an_incident_that_revokes_the_lease(governor, ledger):
    governor.admit(request())
    grant = governor.activate("s/1", "d1", "w1", measured(claim()))
    governor.observe(grant.lease, grant.fence, MOST)
    assert ledger.lease("s/1").state == "active"
    with pytest.raises(LeaseLost, match="memory grew by"):
        governor.observe(grant.lease, grant.fence, MOST + 1)
    assert kinds(ledger)[-2:] == ["incident", "revoke"]
    assert governor.verdict("s/1").rule == "within_memory"
    with pytest.raises(LeaseLost):
        governor.renew(grant.lease, grant.fence)


# --- the worker


@pytest.fixture
def watched(monkeypatch):
    """A keeper that is renewed for ever, and the memory of its process as a test sets it."""
    monkeypatch.setattr("safety.keeper.LOOK_SECONDS", LOOK)
    keepers = []

    def make(**changed):
        memory = [1000]
        authority = FakeAuthority(
            renewals=[30_000] * 10_000, ttl_ms=30_000, claim=claim(**{"gpu_ms": 0, **changed})
        )
        keeper = LeaseKeeper(authority, FakeSwitch(), memory=lambda: memory[0])
        keeper.authority, keeper.switch, keeper.bytes = authority, keeper._switch, memory
        keepers.append(keeper)
        return keeper

    yield make
    for keeper in keepers:
        keeper.end()


def observed(keeper):
    return [what[3] for what in keeper.authority.asked if what[0] == "observe"]


@pytest.mark.processes
def test_a_process_that_takes_more_than_was_reserved_tells_and_dies(watched):
    keeper = watched()
    begin(keeper)
    with keeper.computing():
        keeper.bytes[0] += MOST + 1
        assert keeper.switch.thrown.wait(5)
    assert observed(keeper) == [MOST + 1]
    with pytest.raises(LeaseLost, match="memory grew by"), keeper.computing():
        raise AssertionError("computed")


def test_what_the_process_had_before_does_not_count(watched):
    keeper = watched()
    keeper.bytes[0] = 10 * MOST
    begin(keeper)
    with keeper.computing():
        keeper.bytes[0] += MOST
        assert not keeper.switch.thrown.wait(10 * LOOK)
    assert observed(keeper) == []


def test_a_process_that_gets_no_answer_dies_all_the_same(watched):
    keeper = watched()
    begin(keeper)
    keeper.authority.silent = GovernorUnreachable("gone")
    with keeper.computing():
        keeper.bytes[0] += MOST + 1
        assert keeper.switch.thrown.wait(5)
    assert keeper.switch.log[-1] == 1.0


def test_no_renewal_gives_time_to_a_process_that_is_about_to_die(watched):
    keeper = watched()
    grant = begin(keeper)
    asked, answer = threading.Event(), threading.Event()
    keeper.authority.observe = lambda *_: (asked.set(), answer.wait(5))
    with keeper.computing():
        keeper.bytes[0] += MOST + 1
        assert asked.wait(5)
        with keeper._lock:
            keeper._extend(time.monotonic(), grant.ttl_ms)
        assert keeper.switch.armed == 1.0
        answer.set()
        assert keeper.switch.thrown.wait(5)


def test_between_two_steps_a_process_dies_as_well(watched):
    keeper = watched()
    begin(keeper)
    keeper.bytes[0] += MOST + 1
    eventually(keeper.switch.thrown.is_set)
    assert observed(keeper)


def test_nobody_looks_at_the_host_for_a_trial_on_a_gpu_nor_after_the_end(watched):
    on_gpu, ended = watched(gpu_ms=1), watched()
    begin(on_gpu)
    begin(ended)
    ended.end()
    for keeper in (on_gpu, ended):
        keeper.bytes[0] += MOST + 1
    time.sleep(10 * LOOK)
    assert observed(on_gpu) == observed(ended) == []


class FakeDevice:
    """GPUs whose memory a test sets; what was taken before a trial begins does not count."""

    def __init__(self):
        self.bytes, self.before = 10 * MOST, 0

    def begin(self):
        self.before = self.bytes

    def grown_bytes(self):
        return self.bytes - self.before


def test_a_trial_that_takes_more_of_a_gpu_than_was_reserved_tells_and_dies(watched):
    keeper = watched(gpu_ms=1)
    device = keeper._device = FakeDevice()
    begin(keeper)
    with keeper.computing():
        device.bytes += MOST
        assert not keeper.switch.thrown.wait(10 * LOOK)
        device.bytes += 1
        assert keeper.switch.thrown.wait(5)
    assert observed(keeper) == [MOST + 1]


def test_the_gpus_of_a_trial_that_has_none_are_not_looked_at(watched):
    keeper = watched()
    device = keeper._device = FakeDevice()
    begin(keeper)
    device.bytes += MOST + 1
    assert not keeper.switch.thrown.wait(10 * LOOK)


def test_nobody_looks_at_memory_that_nobody_told(watched):
    untold, told = watched(memory_bytes=100_000), watched(memory_bytes=99_999)
    for keeper in (untold, told):
        keeper._untold = 100_000
        begin(keeper)
        keeper.bytes[0] += 2 * MOST
    eventually(told.switch.thrown.is_set)
    assert observed(untold) == []


def test_nobody_looks_where_nobody_can_tell(watched):
    keeper = watched()
    keeper._memory = None
    begin(keeper)
    assert "memory-watch" not in {thread.name for thread in threading.enumerate()}


def test_a_lease_that_ends_while_its_memory_is_looked_at_is_not_told_of(watched):
    keeper = watched()
    grant = begin(keeper)
    over = keeper._over
    keeper.end()
    keeper._end_for_memory(grant, over, MOST + 1)
    assert observed(keeper) == []


TAKER = """
import sys, time
from safety import KernelTimer, LeaseKeeper
from safety.resources import resident_bytes
from tests.safety.fakes import FakeAuthority, claim, measured
authority = FakeAuthority(renewals=[30_000] * 100, ttl_ms=30_000, claim=claim(gpu_ms=0))
keeper = LeaseKeeper(authority, KernelTimer(), memory=resident_bytes)
keeper.begin("s/1", "d1", "w1", measured(claim()))
held = []
with keeper.computing():
    while True:
        held.append(b"x" * 20_000_000)
        print(len(held) * 20, flush=True)
        time.sleep(0.02)
"""


@pytest.mark.processes
def test_a_real_process_is_killed_before_it_takes_much_more():
    done = subprocess.run(
        [sys.executable, "-c", TAKER], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -9
    assert 240 < int(done.stdout.split()[-1]) < 1500
