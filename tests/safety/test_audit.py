import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import audit
from safety.audit import GENESIS, Entry, chained
from tests.safety.databases import raw
from tests.safety.fakes import request

ENTRIES = [Entry(at_ms=i, kind="reserve", sweep="s", key=f"s/{i}", rule="", detail="{}") for i in range(6)]


def chain(entries):
    rows, previous = [], GENESIS
    for seq, entry in enumerate(entries, start=1):
        previous = chained(previous, seq, entry)
        rows.append((seq, entry, previous))
    return rows


@pytest.fixture
def written(ledger, url):
    """A ledger with five rows in its audit, and a way to change them behind its back."""
    for i in range(4):
        ledger.reserve(request(f"s/{i}"))

    def change(sql):
        with raw(url) as database:
            database.execute(sql)
        return audit.verify(ledger.audit())

    return change


def test_the_ledgers_own_audit_follows(ledger):
    assert len(ledger.audit()) == 1
    ledger.reserve(request())
    assert audit.verify(ledger.audit()) is None


def test_an_empty_audit_follows():
    assert audit.verify([]) is None


@pytest.mark.parametrize(
    "change",
    [
        "at_ms = at_ms + 1",
        "kind = 'void'",
        "sweep = 'other'",
        "key = 's/9'",
        "rule = 'r'",
        "detail = '{}'",
        "hash = (SELECT hash FROM audit WHERE seq = 2)",
    ],
)
def test_the_first_edited_row_is_named(written, change):
    assert written(f"UPDATE audit SET {change} WHERE seq = 3") == 3


def test_a_row_deleted_in_the_middle_is_named(written):
    assert written("DELETE FROM audit WHERE seq = 3") == 3


def test_a_row_deleted_in_the_middle_is_named_though_the_rest_is_numbered_anew(written):
    assert written("DELETE FROM audit WHERE seq = 3") == 3
    assert written("UPDATE audit SET seq = seq - 1 WHERE seq > 3") == 3


def test_two_rows_swapped_are_named(written):
    written("UPDATE audit SET seq = 99 WHERE seq = 2")
    written("UPDATE audit SET seq = 2 WHERE seq = 4")
    assert written("UPDATE audit SET seq = 4 WHERE seq = 99") == 2


@given(st.integers(0, 5), st.integers(0, 5))
def test_any_two_rows_swapped_are_found(i, j):
    rows = chain(ENTRIES)
    rows[i], rows[j] = rows[j], rows[i]
    assert audit.verify(rows) == (None if i == j else min(i, j) + 1)


@given(st.integers(0, 5))
def test_any_row_left_out_but_the_last_is_found(i):
    rows = chain(ENTRIES)
    del rows[i]
    assert audit.verify(rows) == (None if i == 5 else i + 1)


def test_an_edited_row_whose_own_hash_is_made_to_fit_is_found_at_the_next_one():
    rows = chain(ENTRIES)
    seq, _, _ = rows[2]
    forged = Entry(at_ms=2, kind="void")
    rows[2] = seq, forged, chained(rows[1][2], seq, forged)
    assert audit.verify(rows) == 4


def test_a_gap_in_the_numbers_is_found_though_every_hash_fits():
    first = chained(GENESIS, 1, ENTRIES[0])
    rows = [(1, ENTRIES[0], first), (3, ENTRIES[1], chained(first, 3, ENTRIES[1]))]
    assert audit.verify(rows) == 2


# of a few characters, so that many texts differ by where they are divided alone
TEXT = st.text('ab"\\\0é', max_size=4)


@given(TEXT, TEXT)
def test_text_can_not_move_from_one_field_to_the_next(one, two):
    first = Entry(at_ms=0, kind=one, sweep=two)
    second = Entry(at_ms=0, kind=one + two, sweep="")
    assert (chained(GENESIS, 1, first) == chained(GENESIS, 1, second)) == (first == second)
