"""The kill switch of every sweep, in the ledger."""

import threading
import time

import pytest

from safety import Allow, Deny, LeaseLost, Ledger, LedgerError, Usage
from tests.safety.fakes import GFLOP, FakeClock, amounts, kinds, limits, request

KILLED = Deny("killed", "sweep s is killed: fire")


def reserved_and_active(ledger):
    for key in ("s/1", "s/2"):
        assert ledger.reserve(request(key)) == Allow()
    return ledger.activate("s/1", "d1", "w1")


def test_nothing_is_admitted_begun_or_renewed_after_a_kill(ledger):
    grant = reserved_and_active(ledger)
    assert ledger.kill("fire", "ann") == 2
    assert ledger.reserve(request("s/3")) == KILLED
    assert ledger.readmit(request("s/4")) == KILLED
    for call in (lambda: ledger.activate("s/2", "d1", "w"), lambda: ledger.renew(grant.lease, grant.fence)):
        with pytest.raises(LeaseLost):
            call()
    assert ledger.pulse("s") == "killed"
    with pytest.raises(LedgerError, match="killed: fire; nothing runs until"):
        ledger.open_sweep("another", limits())


def test_a_kill_ends_the_leases_of_every_sweep_and_what_was_used_is_still_settled(ledger):
    ledger.open_sweep("t", limits())
    assert ledger.reserve(request("t/1", sweep="t")) == Allow()
    grant = reserved_and_active(ledger)
    assert ledger.kill("fire", "ann") == 3
    assert [ledger.lease(key).state for key in ("s/1", "s/2", "t/1")] == ["revoked", "void", "void"]
    assert amounts(ledger, "train_gflop") == (10, 0, 0)
    ledger.settle(grant.lease, grant.fence, Usage(train_flops=2 * GFLOP, wall_ms=1, reports=1))
    assert amounts(ledger, "train_gflop") == (0, 2, 0)


def test_whatever_its_reason_is_made_of_a_kill_kills(ledger):
    ledger.kill("half \ud83d a\0 face", by="\udcff")
    assert (ledger.killed().reason, ledger.killed().by) == ("half ? a? face", "?")


def test_a_kill_outlives_every_process(ledger):
    ledger.kill("fire", "ann")
    ledger.close()
    again = Ledger(ledger.url, FakeClock().clock())
    assert (again.killed().reason, again.killed().by) == ("fire", "ann")
    assert again.reserve(request()) == KILLED
    again.close()


def test_the_first_reason_stays_and_the_audit_has_every_one(ledger):
    ledger.kill("fire", "ann")
    ledger.kill("flood", "bob")
    assert ledger.killed().reason == "fire"
    details = [entry.detail for _, entry, _ in ledger.audit() if entry.kind == "kill"]
    assert details == ['{"by":"ann","reason":"fire"}', '{"by":"bob","reason":"flood"}']


def test_a_switch_that_is_lifted_opens_what_was_open_and_brings_no_lease_back(ledger):
    grant = reserved_and_active(ledger)
    ledger.kill("fire", "ann")
    assert ledger.unkill("it is out", "bob")
    assert ledger.killed() is None
    assert kinds(ledger)[-1] == "unkill"
    assert ledger.pulse("s") == "open"
    with pytest.raises(LeaseLost, match="revoked"):
        ledger.renew(grant.lease, grant.fence)
    assert ledger.readmit(request("s/2")) == Allow()
    ledger.settle(grant.lease, grant.fence, Usage())
    assert ledger.readmit(request("s/1")) == Allow()


def test_a_switch_that_was_not_thrown_is_not_lifted(ledger):
    rows = len(ledger.audit())
    assert not ledger.unkill("why", "ann")
    assert len(ledger.audit()) == rows


def test_sweeps_that_were_closed_or_frozen_while_killed_are_so_afterwards(ledger):
    ledger.open_sweep("t", limits())
    ledger.kill("fire", "ann")
    ledger.close_sweep("s", {})
    ledger.freeze("t", "too good")
    ledger.unkill("it is out", "bob")
    assert [ledger.sweep(name).state for name in "st"] == ["closed", "frozen"]
    assert kinds(ledger)[-3:] == ["close_sweep", "freeze", "unkill"]


def test_a_sweep_that_is_closed_can_still_be_frozen(ledger):
    ledger.close_sweep("s", {})
    ledger.freeze("s", "settled late, and too much")
    assert ledger.sweep("s").state == "frozen"


def test_a_refusal_while_killed_does_not_bind_its_trial_for_good(ledger):
    assert ledger.reserve(request()) == Allow()
    ledger.refuse("s", "s/1", KILLED)
    assert ledger.lease("s/1").rule == ""


def test_no_lease_of_the_moment_of_a_kill_is_active_afterwards(ledger):
    began: list[str] = []

    def driver(name: str) -> None:
        for number in range(200):
            key = f"{name}/{number}"
            try:
                if ledger.reserve(request(key, train_flops=0, wall_ms=0, gpu_ms=0)) != Allow():
                    return
                ledger.activate(key, "d1", name)
            except LeaseLost:
                return
            began.append(key)

    drivers = [threading.Thread(target=driver, args=(name,)) for name in "ab"]
    for one in drivers:
        one.start()
    while len(began) < 5:
        time.sleep(0.001)
    ledger.kill("fire", "ann")
    for one in drivers:
        one.join()
    assert len(began) < 400
    assert {lease.state for lease in ledger.open_leases("s")} == {"revoked"}
