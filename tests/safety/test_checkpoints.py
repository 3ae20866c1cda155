"""Row 36: what was done to an audit behind its ledger's back, and which row is named for it."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest

from safety import Ledger, audit, checkpoints
from safety.audit import GENESIS, Entry, Head, chained
from safety.checkpoints import CheckpointFile, sign, verify
from safety.errors import CheckpointError
from safety.identity import identity_in
from tests.safety.fakes import limits

EARLIER = 1_700_000_000_000


@pytest.fixture
def identity(tmp_path):
    return identity_in(tmp_path / "key")


@pytest.fixture
def checkpoint(identity):
    return sign(identity, Head(seq=7, hash="ab", ledger="cd"), EARLIER)


@pytest.fixture
def place(tmp_path):
    return CheckpointFile(tmp_path / "elsewhere")


def signed_now(ledger, identity, at_ms=EARLIER):
    with ledger.reading() as connection:
        return sign(identity, audit.head(connection), at_ms)


class Written:
    """An audit of ten rows of which the first five, and all ten, were signed; and its database."""

    def __init__(self, ledger, url, identity):
        self.ledger, self.url, self.identity = ledger, url, identity
        self.checkpoints = [self._signed_after(4), self._signed_after(5)]

    def _signed_after(self, rows):
        with self.ledger._transaction() as connection:
            for i in range(rows):
                audit.append(connection, Entry(at_ms=EARLIER + i, kind="reserve", sweep="s", key=f"s/{i}"))
        return signed_now(self.ledger, self.identity, EARLIER + rows)

    def run(self, *statements):
        with sqlite3.connect(self.url.removeprefix("sqlite:///")) as database:
            for sql in statements:
                database.execute(sql)

    def chain_anew(self):
        previous = GENESIS
        for seq, (_, entry, _) in enumerate(self.ledger.audit(), start=1):
            previous = chained(previous, seq, entry)
            self.run(f"UPDATE audit SET hash = '{previous}' WHERE seq = {seq}")

    def checked(self, kept=None, public=None):
        kept = self.checkpoints if kept is None else kept
        return verify(self.ledger.audit_stream(), kept, public or self.identity.public)


@pytest.fixture
def written(ledger, url, identity):
    return Written(ledger, url, identity)


def test_an_audit_that_was_left_alone_is_as_it_was_signed(written):
    found = written.checked()
    assert (found.problem, found.bad, found.rows, found.checkpoints) == ("", None, 10, 2)
    assert found.newest == written.checkpoints[-1]


def test_an_edited_row_is_named(written):
    written.run("UPDATE audit SET kind = 'void' WHERE seq = 3")
    found = written.checked()
    assert found.bad == 3
    assert found.problem.startswith("Row 3 was changed, moved or taken out")


def test_two_rows_swapped_are_named(written):
    for old, new in ((4, 99), (7, 4), (99, 7)):
        written.run(f"UPDATE audit SET seq = {new} WHERE seq = {old}")
    assert written.checked().bad == 4


def test_a_row_deleted_in_the_middle_is_named(written):
    written.run("DELETE FROM audit WHERE seq = 6")
    assert written.checked().bad == 6


def test_a_row_from_before_the_first_is_found(written):
    written.run(
        "INSERT INTO audit SELECT 0, at_ms, kind, sweep, key, rule, detail, hash FROM audit WHERE seq = 2"
    )
    assert written.checked().bad == 1


@pytest.mark.parametrize("left", [9, 5, 1])
def test_a_tail_that_was_cut_is_named_by_what_was_signed(written, left):
    written.run(f"DELETE FROM audit WHERE seq > {left}")
    assert audit.verify(written.ledger.audit()) is None  # the chain alone doesn't know
    found = written.checked()
    assert (found.bad, found.rows) == (left + 1, left)
    assert found.problem == (
        f"Row {left + 1} is missing: the tail was cut; the rows up to 10 were signed and must be there"
    )


def test_an_audit_that_was_emptied_is_cut_at_its_first_row(written):
    written.run("DELETE FROM audit")
    assert written.checked().bad == 1


def test_a_tail_cut_together_with_the_last_checkpoint_shows_against_another_place_alone(written):
    written.run("DELETE FROM audit WHERE seq > 7")
    assert written.checked(written.checkpoints[:1]).problem == ""
    assert written.checked([*written.checkpoints[:1], *written.checkpoints]).bad == 8


def test_a_chain_made_anew_is_found_at_the_next_row_that_was_signed(written):
    written.run("UPDATE audit SET key = 's/other' WHERE seq = 7")
    written.chain_anew()
    assert audit.verify(written.ledger.audit()) is None
    found = written.checked()
    assert found.bad == 10
    assert "one of the rows 6 to 10 was changed, and the chain after it made anew" in found.problem


def test_a_chain_made_anew_before_the_first_checkpoint_names_all_rows_up_to_it(written):
    written.run("UPDATE audit SET key = 's/other' WHERE seq = 2")
    written.chain_anew()
    found = written.checked()
    assert found.bad == 5
    assert "one of the rows 1 to 5 was changed" in found.problem


def test_another_ledger_in_its_place_is_told_as_such(written, tmp_path, clock):
    other = Ledger(f"sqlite:///{tmp_path}/other.db", clock.clock())
    other.open_sweep("other", limits())
    found = verify(other.audit_stream(), written.checkpoints, written.identity.public)
    other.close()
    assert found.bad == 1
    assert "this is another ledger, or it was made anew" in found.problem


def test_checkpoints_of_another_key_prove_nothing(written, tmp_path):
    other = identity_in(tmp_path / "other")
    assert "The checkpoint of row 5 isn't signed by the key" in written.checked(public=other.public).problem
    # one that says it is signed by the pinned key
    posed = replace(signed_now(written.ledger, other), public=written.identity.public)
    assert "The checkpoint of row 10 isn't signed" in written.checked([posed]).problem


@pytest.mark.parametrize(
    "changed",
    [
        {"seq": 9},
        {"hash": "0" * 64},
        {"at_ms": 1},
        {"ledger": "0" * 64},
        {"signature": "no"},
        {"hash": "\ud800"},
    ],
)
def test_no_field_of_a_checkpoint_can_be_changed(checkpoint, identity, changed):
    assert checkpoint.signed_by(identity.public)
    assert not replace(checkpoint, **changed).signed_by(identity.public)


def test_what_the_key_signed_for_another_purpose_is_no_checkpoint(checkpoint, identity):
    fields = {name: value for name, value in asdict(checkpoint).items() if name != "signature"}
    signature = identity.sign(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
    assert not replace(checkpoint, signature=signature.hex()).signed_by(identity.public)


def test_rows_behind_the_newest_checkpoint_that_should_be_signed_are_told(written, ledger):
    assert written.checked().unsigned is None
    ledger.pulse("s")
    ledger.open_sweep("t", limits())
    assert written.checked().unsigned is None  # no such row
    ledger.kill("fire", "ann")
    ledger.unkill("out", "ann")
    found = written.checked()
    assert (found.problem, found.unsigned, found.unwritten) == ("", 12, "")


# --- the file


def test_checkpoints_are_read_as_they_were_written(written, place):
    assert (place.read().checkpoints, place.read().newest) == ((), None)
    for checkpoint in reversed(written.checkpoints):
        place.append(checkpoint)
    kept = place.read()
    assert kept.checkpoints == tuple(reversed(written.checkpoints))
    assert (kept.newest, kept.unreadable) == (written.checkpoints[-1], ())


def test_a_torn_line_is_told_and_the_next_one_whole(written, place):
    for checkpoint in written.checkpoints:
        place.append(checkpoint)
    size = place.path.stat().st_size
    os.truncate(place.path, size - 40)
    assert (place.read().checkpoints, place.read().unreadable) == (tuple(written.checkpoints[:1]), (2,))
    place.append(written.checkpoints[1])
    assert (place.read().checkpoints, place.read().unreadable) == (tuple(written.checkpoints), (2,))


@pytest.mark.parametrize(
    "changed",
    [
        {"seq": 0},
        {"seq": True},
        {"seq": "1"},
        {"seq": 2**53},
        {"at_ms": 1.5},
        {"hash": 1},
        {"ledger": None},
        {"public": ["ab"]},
        {"signature": 7},
        {"more": 1},
    ],
)
def test_a_line_that_is_no_checkpoint_is_told(checkpoint, place, changed):
    place.append(checkpoint)
    assert place.read().newest == checkpoint
    fields = {**asdict(checkpoint), **changed}
    place.path.write_text(json.dumps(fields) + "\n")
    assert (place.read().checkpoints, place.read().unreadable) == ((), (1,))


@pytest.mark.parametrize("line", [b"[1]", b"\xff", b"{}", b"null", b"[" * 100_000])
def test_a_line_of_anything_is_told(place, line):
    place.path.parent.mkdir()
    place.path.write_bytes(line + b"\n")
    assert place.read().unreadable == (1,)


def test_each_ledger_has_a_file_of_its_own(tmp_path, checkpoint):
    one, other = CheckpointFile(tmp_path, "one"), CheckpointFile(tmp_path, "other")
    one.append(checkpoint)
    assert other.read().checkpoints == ()


def test_a_file_that_cannot_be_read_is_told(place):
    place.path.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="can't be read: Is a directory"):
        place.read()


def test_a_disk_that_is_full_is_an_error(checkpoint, tmp_path):
    place = CheckpointFile(tmp_path)
    place.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        place.append(checkpoint)


def test_half_a_line_is_an_error_and_the_next_one_whole(written, place):
    """As on a disk that is nearly full: the system writes what still fits, and says so."""
    place.append(written.checkpoints[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (place.path.stat().st_size + 100, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            place.append(written.checkpoints[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert place.read().unreadable == (2,)
    place.append(written.checkpoints[1])
    assert place.read().checkpoints == tuple(written.checkpoints)


def test_a_checkpoint_is_canonical_json_under_the_key(checkpoint, identity):
    """The message of RFC 8785, written out: a checkpoint can be verified without this program."""
    message = (
        f'{{"at_ms":{EARLIER},"hash":"ab","ledger":"cd","meaning":"rsi-ray audit checkpoint",'
        f'"public":"{identity.public}","seq":7}}'
    )
    assert identity.sign(message.encode()).hex() == checkpoint.signature


# --- the stream of rows


@pytest.fixture
def small_pages(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(audit, "PAGE", 4)


@pytest.mark.usefixtures("small_pages")
def test_a_streamed_audit_is_the_audit(written):
    assert list(written.ledger.audit_stream()) == written.ledger.audit()


@pytest.mark.usefixtures("small_pages")
def test_a_reader_in_the_middle_keeps_no_writer_waiting(written, ledger):
    rows = ledger.audit_stream()
    next(rows)
    with ledger.reading() as connection:
        before = audit.head(connection)
        ledger.kill("fire", "ann")  # would wait for 30 s, were the reader in its way
        assert audit.head(connection) == before
    assert [seq for seq, _, _ in rows][-1] > before.seq


def test_the_head_is_told_where_such_a_row_came_after(written, ledger):
    with ledger.reading() as connection:
        head = audit.head(connection)
        assert head == Head(seq=10, hash=ledger.audit()[-1][2], ledger=ledger.audit()[0][2])
        assert audit.head_after(connection, 9, ("reserve",)) == head
        assert audit.head_after(connection, 10, ("reserve",)) is None
        assert audit.head_after(connection, 0, checkpoints.SIGNED) is None


def test_an_empty_audit_has_no_head(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/empty.db")
    with ledger.reading() as connection:
        assert audit.head(connection) is None
    assert list(ledger.audit_stream()) == []
    ledger.close()


@pytest.mark.parametrize("detail", ["[]", "{", "[" * 100_000])
def test_a_detail_that_is_none_tells_nothing(detail):
    assert audit.told(Entry(at_ms=1, kind="x", detail=detail)) == {}
    assert audit.told(Entry(at_ms=1, kind="x", detail='{"a": 1}')) == {"a": 1}
