"""The commands of whoever watches over a cluster."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety import Allow, Ledger, file_system
from safety.checkpoints import CheckpointFile
from safety.identity import KEY_FILE, identity_in
from safety.kill_file import obey
from tests.conftest import Printed
from tests.safety.fakes import FakeClock, limits, request


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A sweep with one lease that began and one that is reserved."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", FakeClock().clock())
    ledger.open_sweep("s", limits())
    for key in ("s/1", "s/2"):
        assert ledger.reserve(request(key)) == Allow()
    ledger.activate("s/1", "d1", "w1")
    yield ledger
    ledger.close()


def test_a_kill_stops_every_sweep_until_it_is_lifted(ledger: Ledger, command: Printed):
    code, printed = command("kill", "--reason", "fire", "--by", "ann")
    assert (code, printed.count("\n")) == (0, 1)
    assert "2 leases are revoked" in printed
    assert ledger.killed() is not None
    assert ledger.pulse("s") == "killed"
    assert command("unkill", "--reason", "out") == (0, "Sweeps may run again\n")
    assert ledger.pulse("s") == "open"
    assert command("unkill", "--reason", "out") == (0, "The kill switch was not thrown\n")


def test_a_kill_that_the_ledger_does_not_take_becomes_the_file_that_kills(
    ledger: Ledger, command: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("safety.database.BUSY_TIMEOUT_MS", 50)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    code, printed = command("kill", "--reason", "fire", "--by", "ann")
    assert (code, printed.count("\n")) == (1, 1)
    assert f"database is locked; the file {tmp_path}/KILL kills as soon as it can be written" in printed
    other.execute("ROLLBACK")
    other.close()
    obey(ledger, tmp_path)
    killed = ledger.killed()
    assert killed is not None
    assert killed.reason == "fire (by ann)"


def test_a_kill_on_a_ledger_that_came_to_lie_on_a_share_becomes_the_file_that_kills(
    ledger: Ledger, command: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mounts").write_text(f"server:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(file_system, "MOUNTS", tmp_path / "mounts")
    code, printed = command("kill", "--reason", "fire", "--by", "ann")
    assert (code, printed.count("\n")) == (1, 1)
    assert "lies on nfs4" in printed
    obey(ledger, tmp_path)
    assert ledger.killed() is not None


def test_a_user_without_a_name_kills_too(ledger: Ledger, command: Printed, monkeypatch: pytest.MonkeyPatch):
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert command("kill", "--reason", "fire")[0] == 0
    killed = ledger.killed()
    assert killed is not None
    assert killed.by.startswith("user ")


@pytest.mark.parametrize(
    "arguments",
    [["kill", "--reason", "x"], ["audit", "verify"], ["audit", "show"], ["audit", "report", "--out", "x"]],
)
def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path, command: Printed, arguments: list[str]):
    code, printed = command(*arguments)
    assert (code, printed.count("\n")) == (2, 1)
    assert f"ledger {tmp_path}/ledger.db: no such file" in printed
    assert list(tmp_path.iterdir()) == []


def test_a_kill_is_signed_where_there_is_a_key_to_sign_by(ledger: Ledger, command: Printed, tmp_path: Path):
    place = CheckpointFile(tmp_path / "checkpoints", "ledger.db")
    assert command("kill", "--reason", "fire")[0] == 0
    assert place.read().newest is None  # no governor has ever made a key here
    assert not (tmp_path / KEY_FILE).exists()
    public = identity_in(tmp_path).public
    command("kill", "--reason", "again")
    newest = place.read().newest
    assert newest
    assert (newest.seq, newest.public) == (len(ledger.audit()), public)
    command("unkill", "--reason", "out")
    newest = place.read().newest
    assert newest
    assert newest.seq == len(ledger.audit())


def test_a_kill_goes_through_though_its_key_may_not_be_used(ledger: Ledger, command: Printed, tmp_path: Path):
    identity_in(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    code, printed = command("kill", "--reason", "fire")
    assert code == 0
    assert "the audit is not signed now" in printed
    assert ledger.killed() is not None
