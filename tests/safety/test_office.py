"""A ledger at work: where it is signed, and which ledger nobody works on."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time

import pytest

from safety import Allow, Ledger
from safety.errors import CheckpointError, LedgerError, LedgerUnavailable
from safety.identity import identity_in
from safety.office import Office, _inode
from safety.places import places_of, record_of
from tests.safety.fakes import kinds, limits, request


@pytest.fixture
def folder(tmp_path):
    """Of a ledger, in which a trial is admitted."""
    ledger = Ledger(url_of(tmp_path / "home"))
    ledger.open_sweep("s", limits())
    ledger.reserve(request())
    ledger.close()
    return tmp_path / "home"


@pytest.fixture
def elsewhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def url_of(folder):
    return f"sqlite:///{folder / 'ledger.db'}"


def opened(folder):
    return Office(url_of(folder), folder, identity_in(folder))


def signed_rows(folder):
    return [place.read().newest.seq for place in places_of(url_of(folder), folder)]


def work(folder, *checkpoints):
    """Freeze the sweep, which is signed; the number of rows then."""
    office = opened(folder)
    office.sign_into(tuple(map(str, checkpoints)))
    office.ask("freeze", ("s", "odd")).result(10)
    office.close()
    ledger = Ledger(url_of(folder))
    rows = len(ledger.audit())
    ledger.close()
    return rows


def cut(folder, rows):
    connection = sqlite3.connect(folder / "ledger.db")
    with connection:
        connection.execute("DELETE FROM audit WHERE seq > ?", (rows,))
    connection.close()


def test_a_folder_that_was_named_once_is_signed_into_by_every_office_after(folder, elsewhere):
    rows = work(folder, elsewhere, elsewhere)
    assert signed_rows(folder) == [rows, rows]
    office = opened(folder)
    office.ask("fail", ("s", "s/1", "odd")).result(10)
    office.ask("close_sweep", ("s", {})).result(10)
    office.ask("open_sweep", ("t", limits())).result(10)
    office.ask("freeze", ("t", "odd")).result(10)
    office.close()
    assert signed_rows(folder)[0] == signed_rows(folder)[1] > rows


def test_a_second_folder_is_added_and_the_first_one_stays(folder, elsewhere, tmp_path):
    (tmp_path / "second").mkdir()
    office = opened(folder)
    office.sign_into((str(elsewhere),))
    office.sign_into((str(tmp_path / "second"),))
    office.ask("freeze", ("s", "odd")).result(10)
    office.close()
    assert len(set(signed_rows(folder))) == 1
    assert len(signed_rows(folder)) == 3


def state_of_the_lease(folder, within):
    """Once it is no longer reserved, or after so many seconds."""
    until = time.monotonic() + within
    ledger = Ledger(url_of(folder))
    while (state := ledger.lease("s/1").state) == "reserved" and time.monotonic() < until:
        time.sleep(0.02)
    ledger.close()
    return state


@pytest.fixture
def forsaken(folder):
    """The same folder; the driver was last seen long ago, and no other comes."""
    connection = sqlite3.connect(folder / "ledger.db")
    with connection:
        connection.execute("UPDATE sweeps SET seen_ms = seen_ms - 1000000")
    connection.close()
    return folder


def test_what_dead_drivers_left_is_ended_though_nobody_asks(forsaken):
    office = Office(url_of(forsaken), forsaken, identity_in(forsaken), reap_seconds=0.5)
    assert state_of_the_lease(forsaken, within=0) == "reserved"
    assert state_of_the_lease(forsaken, within=20) == "void"
    office.close()


def test_a_reaping_that_fails_keeps_nobody_from_an_answer(forsaken, monkeypatch, caplog):
    office = Office(url_of(forsaken), forsaken, identity_in(forsaken), reap_seconds=0.0)
    monkeypatch.setattr(office._ledger, "reap", lambda: (_ for _ in ()).throw(LedgerError("it is odd")))
    assert office.ask("state", ("s",)).result(10) == "open"
    office.close()
    assert "what nobody looks after is not ended now: it is odd" in caplog.text


def test_a_folder_that_cannot_be_used_is_refused_and_not_remembered(folder, elsewhere):
    office = opened(folder)
    with pytest.raises(CheckpointError, match="no such folder on the governor's host"):
        office.sign_into((str(elsewhere / "missing"),))
    office.close()
    assert not record_of(url_of(folder), folder).exists()


def test_a_folder_of_another_ledger_is_refused(folder, elsewhere, tmp_path):
    work(folder, elsewhere)
    other = tmp_path / "other"
    office = opened(other)
    with pytest.raises(CheckpointError, match=r"elsewhere: row 3 of .* name a folder of its own"):
        office.sign_into((str(elsewhere),))
    office.close()
    assert not record_of(url_of(other), other).exists()


@pytest.mark.parametrize("left", [0, 1, 2])
def test_nobody_works_on_a_ledger_whose_tail_was_cut(folder, elsewhere, left):
    rows = work(folder, elsewhere)
    cut(folder, left)
    for beside in (True, False):  # each place tells by itself
        if not beside:
            os.unlink(places_of(url_of(folder), folder)[0].path)
        found = rf"ledger.db: row {rows} of the audit is gone, .*; nothing is admitted. Put back the ledger"
        with pytest.raises(LedgerError, match=found):
            opened(folder)


def test_a_ledger_that_was_cut_together_with_all_beside_it_shows_to_whoever_names_the_folder(
    folder, elsewhere
):
    work(folder, elsewhere)
    cut(folder, 2)
    shutil.rmtree(folder / "checkpoints")
    office = opened(folder)
    with pytest.raises(CheckpointError, match="the ledger was cut, replaced, or is an older copy"):
        office.sign_into((str(elsewhere),))
    office.close()


def test_nobody_works_on_a_ledger_that_took_the_place_of_another(folder):
    rows = work(folder)
    (folder / "ledger.db").unlink()
    ledger = Ledger(url_of(folder))
    ledger.open_sweep("s", limits())
    for number in range(rows):
        ledger.kill(f"{number}", "ann")
    ledger.close()
    with pytest.raises(LedgerError, match=f"row {rows} of the audit is another"):
        opened(folder)


def test_a_cut_ledger_can_be_killed_all_the_same(folder):
    work(folder)
    cut(folder, 2)
    ledger = Ledger(url_of(folder))
    ledger.kill("fire", "ann")
    assert ledger.killed().reason == "fire"
    ledger.close()


def test_while_a_folder_is_away_nobody_can_tell_and_nothing_is_admitted_until_it_is_back(folder, elsewhere):
    work(folder, elsewhere)
    away = elsewhere.rename(elsewhere.with_name("away"))
    with pytest.raises(LedgerUnavailable, match=r"away; bring it back, or take its line out of .*\.places"):
        opened(folder)
    away.rename(elsewhere)
    opened(folder).close()
    os.unlink(elsewhere / "ledger.db.checkpoints.jsonl")
    record_of(url_of(folder), folder).write_text("")
    opened(folder).close()


def test_a_folder_that_goes_away_meanwhile_is_an_incident_and_the_work_goes_on(folder, elsewhere):
    office = opened(folder)
    office.sign_into((str(elsewhere),))
    away = elsewhere.rename(elsewhere.with_name("away"))
    assert office.ask("admit", (request("s/2"),)).result(10) == Allow()
    office.ask("close_sweep", ("s", {})).result(10)
    ledger = Ledger(url_of(folder))
    until = time.monotonic() + 10
    while "incident" not in kinds(ledger) and time.monotonic() < until:
        time.sleep(0.05)
    assert kinds(ledger).count("incident") == 1
    away.rename(elsewhere)
    office.ask("open_sweep", ("t", limits())).result(10)
    office.ask("close_sweep", ("t", {})).result(10)
    office.close()
    assert set(signed_rows(folder)) == {len(ledger.audit())}
    ledger.close()


@pytest.mark.parametrize("replaced", [True, False])
def test_under_an_office_whose_ledger_was_replaced_or_taken_away_nothing_is_admitted(folder, replaced):
    office, ledger = opened(folder), folder / "ledger.db"
    assert office.ask("admit", (request("s/2"),)).result(10) == Allow()
    ledger.rename(folder / "old.db")
    if replaced:
        shutil.copy(folder / "old.db", ledger)
    with pytest.raises(LedgerError, match="replaced, or is gone; nothing is admitted"):
        office.ask("admit", (request("s/3"),)).result(10)
    ledger.unlink(missing_ok=True)
    (folder / "old.db").rename(ledger)
    with pytest.raises(LedgerUnavailable, match="its file is back; ask again"):
        office.ask("admit", (request("s/3"),)).result(10)
    assert office.ask("admit", (request("s/3"),)).result(10) == Allow()
    office.close()


def test_a_file_is_the_same_under_another_name_and_none_where_it_is_gone(tmp_path):
    file = tmp_path / "ledger.db"
    file.touch()
    before = _inode(file)
    moved = file.rename(tmp_path / "moved.db")
    assert (_inode(moved), _inode(file), _inode(None)) == (before, None, None)
    file.touch()
    assert _inode(file) not in (before, None)


def test_what_metrics_tell_is_read_beside_those_that_are_answered(folder):
    office = opened(folder)
    office.ask("admit", (request("s/2"),)).result(10)
    found = office.observe()
    assert [running.sweep.name for running in found.overview.sweeps] == ["s"]
    assert found.tally.rows["reserve", ""] == 2
    office.ask("admit", (request("s/3"),)).result(10)
    assert office.observe().tally.rows["reserve", ""] == 3
    office.close()


def test_a_governor_that_takes_no_calls_any_more_does_not_look_alive(folder):
    office = opened(folder)
    office.ask("state", ("s",)).result(10)
    alive = office.observe().alive_ms
    assert abs(alive - time.time() * 1000) < 60_000
    (folder / "ledger.db").rename(folder / "away.db")
    with pytest.raises(LedgerError, match="replaced, or is gone"):
        office.ask("state", ("s",)).result(10)
    alive = office._alive_ms
    time.sleep(0.6)  # it looks four times a second, and finds none
    assert office._alive_ms == alive
    (folder / "away.db").rename(folder / "ledger.db")
    with pytest.raises(LedgerUnavailable):
        office.ask("state", ("s",)).result(10)
    office.ask("state", ("s",)).result(10)
    assert office._alive_ms > alive
    office.close()
