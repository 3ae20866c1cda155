"""Names that are no folder everywhere, or that look like another one's."""

from __future__ import annotations

import pytest

from safety import Ledger, LedgerError
from safety.names import plain_name
from tests.safety.fakes import limits

REFUSED = {
    "upwards": "../x",
    "absolute": "/tmp/x",
    "nested": "a/b",
    "of Windows": "a\\b",
    "NUL": "sweep\0",
    "too long": "x" * 300,
    "a device": "CON",
    "a device with an ending": "nul.txt",
    "a Cyrillic lookalike": "sw\u0435\u0435p",
    "a wide lookalike": "\uff53weep",
    "an invisible letter": "sweep\u200b",
    "with a line's end": "sweep\n",
    "hidden": ".sweep",
    "an option": "--sweep",
    "empty": "",
}


@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_a_name_that_is_not_plain_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match="expected 1 to 63 letters") as told:
        plain_name(name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["sweep", "x" * 63, "a.b-c_1", "_train", "console"])
def test_a_plain_name_is_taken_as_it_is(name):
    assert plain_name(name) == name


@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_a_ledger_opens_no_sweep_and_no_lineage_of_such_a_name(tmp_path, clock, name):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", clock.clock())
    with pytest.raises(LedgerError, match=r"sweep .*: expected 1 to 127 letters"):
        ledger.open_sweep(name, limits())
    if name:  # "" is no name at all: a lineage of its own
        with pytest.raises(LedgerError, match=r"lineage .*: expected 1 to 127 letters"):
            ledger.open_sweep("s", limits(), name)
        assert ledger.audit() == []
    ledger.close()


def test_a_sweep_that_is_there_under_such_a_name_goes_on(ledger):
    with ledger.together(), ledger._transaction() as connection:
        connection.exec_driver_sql("UPDATE sweeps SET name = 'my sweep', lineage = 'my sweep'")
    assert ledger.open_sweep("my sweep", limits())
