"""When an audit is signed, and what a place does that can't be written."""

from __future__ import annotations

import logging
import threading

import pytest

from safety import Ledger, Usage
from safety.audit import Head
from safety.checkpoints import CheckpointFile, sign, verify
from safety.errors import CheckpointError
from safety.identity import identity_in
from safety.notary import Notary, NotaryThread
from tests.safety.fakes import kinds, limits, request


@pytest.fixture
def identity(tmp_path):
    return identity_in(tmp_path / "key")


@pytest.fixture
def places(tmp_path):
    return [CheckpointFile(tmp_path / "beside"), CheckpointFile(tmp_path / "elsewhere")]


@pytest.fixture
def notary(ledger, identity, places, clock):
    return Notary(ledger, identity, places, clock.clock())


def begun(ledger, key):
    ledger.reserve(request(key))
    return ledger.activate(key, "d1", "w1")


def checked(ledger, identity, *places: CheckpointFile):
    kept = [checkpoint for place in places for checkpoint in place.read().checkpoints]
    return verify(ledger.audit_stream(), kept, identity.public)


def settle(ledger):
    grant = begun(ledger, "s/settled")
    ledger.settle(grant.lease, grant.fence, Usage(reports=1))


def forfeit(ledger, clock):
    begun(ledger, "s/silent")
    clock.pass_ms(10**6)
    ledger.reap()


def overrun(ledger):
    grant = begun(ledger, "s/over")
    ledger.settle(grant.lease, grant.fence, Usage(train_flops=10**12))


def shut_down(ledger):
    number = ledger.shut_down("s", "odd", "ann").number
    ledger.revoke_leases(number, "ann")
    ledger.take_step(number, "saved", "ann")
    ledger.revert(number, "ann")
    ledger.take_step(number, "reverted", "ann")
    return number


def roll_back(ledger):
    ledger.open_sweep("p", limits(require_approval=False))
    ledger.promote("p", "p/1", 0.5, 0.51)
    ledger.rollback("p", "", "worse in use", "ann")


def release(ledger):
    number = shut_down(ledger)
    ledger.acknowledge(number, "seen", "ann")
    ledger.release(number, "out", "ann")


SIGNED = {
    "shut_down": lambda ledger, clock: ledger.shut_down("s", "odd", "ann"),
    "acknowledge": lambda ledger, clock: ledger.acknowledge(shut_down(ledger), "seen", "ann"),
    "release": lambda ledger, clock: release(ledger),
    "rollback": lambda ledger, clock: roll_back(ledger),
    "settle": lambda ledger, clock: settle(ledger),
    "forfeit": forfeit,
    "kill": lambda ledger, clock: ledger.kill("fire", "ann"),
    "unkill": lambda ledger, clock: (ledger.kill("fire", "ann"), ledger.unkill("out", "ann")),
    "freeze": lambda ledger, clock: ledger.freeze("s", "odd"),
    "close_sweep": lambda ledger, clock: ledger.close_sweep("s", {}),
    "incident": lambda ledger, clock: overrun(ledger),
}


@pytest.mark.parametrize("kind", SIGNED)
def test_the_audits_end_is_signed_at_once_when_it_must_not_be_lost(
    ledger, notary, identity, places, clock, kind
):
    SIGNED[kind](ledger, clock)
    assert kind in kinds(ledger)
    checkpoint = notary.sign_if_due()
    seq, _, row_hash = ledger.audit()[-1]
    assert (checkpoint.seq, checkpoint.hash) == (seq, row_hash)
    assert (checkpoint.at_ms, checkpoint.ledger) == (clock.wall, ledger.audit()[0][2])
    for place in places:
        assert place.read().checkpoints == (checkpoint,)
    assert (checked(ledger, identity, *places).problem, checked(ledger, identity, *places).unsigned) == (
        "",
        None,
    )


def test_nothing_is_signed_where_nothing_is_due(ledger, notary, places):
    begun(ledger, "s/1")
    assert notary.sign_if_due() is None
    ledger.kill("fire", "ann")
    assert notary.sign_if_due()
    assert notary.sign_if_due() is None
    ledger.unkill("out", "ann")
    ledger.open_sweep("t", limits())
    assert notary.sign_if_due()
    assert len(places[0].read().checkpoints) == 2


def test_what_a_process_before_did_not_sign_is_signed_at_the_first_call(ledger, identity, places):
    settle(ledger)
    assert Notary(ledger, identity, places).sign_if_due()
    assert Notary(ledger, identity, places).sign_if_due() is None
    ledger.kill("fire", "ann")
    assert Notary(ledger, identity, places).sign_if_due().seq == len(ledger.audit())


def test_a_place_that_cannot_be_written_stops_nothing_and_is_told_once(
    ledger, notary, identity, places, tmp_path, caplog
):
    (tmp_path / "elsewhere").write_text("a file where the folder should be")
    caplog.set_level(logging.ERROR)
    for number in range(3):
        ledger.kill(f"{number}", "ann")
        notary.sign_if_due()
    assert kinds(ledger).count("incident") == 1
    assert len(caplog.records) == 1
    incident = next(entry for _, entry, _ in ledger.audit() if entry.kind == "incident")
    assert incident.rule == "checkpoints"
    assert f"{places[1].path}: can't be" in incident.detail
    # the other place has them all
    assert [kept.seq for kept in places[0].read().checkpoints] == [3, 4, 5]
    assert checked(ledger, identity, places[0]).unsigned is None


def test_a_place_that_is_back_has_what_it_missed(ledger, notary, identity, places, tmp_path):
    ledger.kill("fire", "ann")
    notary.sign_if_due()
    (tmp_path / "elsewhere").rename(tmp_path / "gone")
    (tmp_path / "elsewhere").write_text("")
    for number in range(2):
        ledger.kill(f"{number}", "ann")
        notary.sign_if_due()
    kept = places[0].read().checkpoints
    notary.sign_if_due()
    assert places[0].read().checkpoints == kept  # it lacks nothing
    missed = checked(ledger, identity, CheckpointFile(tmp_path / "gone"))
    assert missed.unsigned == 3
    assert "elsewhere/ledger.checkpoints.jsonl: can't be written" in missed.unwritten
    (tmp_path / "elsewhere").unlink()
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    assert notary.sign_if_due().seq == len(ledger.audit())
    assert checked(ledger, identity, places[1]).unsigned is None
    assert notary.sign_if_due() is None
    # and is told again when it goes again
    (tmp_path / "elsewhere").rename(tmp_path / "gone")
    (tmp_path / "elsewhere").write_text("")
    ledger.kill("again", "ann")
    notary.sign_if_due()
    assert kinds(ledger).count("incident") == 2


def test_a_ledger_that_cannot_be_read_stops_nothing(identity, places, caplog):
    class Silent:
        def reading(self):
            raise CheckpointError("gone")

    assert Notary(Silent(), identity, places).sign_if_due() is None
    assert "the audit can't be signed now: gone" in caplog.text


def test_a_ledger_that_lacks_what_was_signed_is_contradicted(
    ledger, notary, identity, places, tmp_path, clock
):
    assert notary.contradiction() == ""  # nothing is signed
    settle(ledger)
    notary.sign_if_due()
    assert notary.contradiction() == ""
    older = Ledger(f"sqlite:///{tmp_path}/older.db", clock.clock())
    older.open_sweep("s", limits())
    found = Notary(older, identity, places).contradiction()
    assert found.startswith(f"row {len(ledger.audit())} of the audit is gone, though {places[0].path} has it")
    for number in range(9):
        older.kill(f"{number}", "ann")
    assert "is another, though" in Notary(older, identity, places).contradiction()
    older.close()


def test_a_thread_signs_what_was_committed_before_it_is_closed(ledger, notary, places):
    thread = NotaryThread(notary)
    for number in range(5):
        ledger.kill(f"{number}", "ann")
        thread.wake()
    assert thread.close(10.0)
    assert places[0].read().newest.seq == len(ledger.audit())


def test_nobody_waits_for_a_place_that_hangs(ledger, identity, tmp_path):
    hangs = threading.Event()

    class Hanging(CheckpointFile):
        def append(self, checkpoint):
            hangs.wait(20)

    thread = NotaryThread(Notary(ledger, identity, [Hanging(tmp_path)]))
    ledger.kill("fire", "ann")
    thread.wake()
    assert not thread.close(0.2)
    hangs.set()
    assert thread.close(10.0)


def test_a_line_that_somebody_added_does_not_hide_what_the_key_has_signed(
    ledger, notary, identity, places, tmp_path
):
    settle(ledger)
    signed = notary.sign_if_due()
    for number in range(3):
        ledger.kill(f"{number}", "ann")
    seq, _, row_hash = ledger.audit()[-1]
    forger = identity_in(tmp_path / "forger")
    places[0].append(sign(forger, Head(seq=seq, hash=row_hash, ledger=signed.ledger), 1))
    assert notary.contradiction() == ""
    places[0].append(sign(identity, Head(seq=seq - 1, hash="f" * 64, ledger=signed.ledger), 1))
    assert f"row {seq - 1} of the audit is another" in notary.contradiction()


def test_a_ledger_that_was_cut_is_not_signed_over_what_was_signed_of_it(
    ledger, notary, identity, places, tmp_path
):
    begun(ledger, "s/1")
    settle(ledger)
    notary.sign_if_due()
    signed = places[0].read().newest
    with ledger._transaction() as connection:
        connection.exec_driver_sql(f"DELETE FROM audit WHERE seq >= {signed.seq}")
    ledger.kill("one", "ann")
    ledger.kill("two", "ann")
    assert Notary(ledger, identity, places).sign_if_due() is None
    assert places[0].read().newest == signed
    assert "the ledger was cut, replaced, or is an older copy" in ledger.audit()[-1][1].detail
