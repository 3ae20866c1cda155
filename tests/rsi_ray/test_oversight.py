"""The commands of whoever watches over a cluster."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safety import Allow, Ledger
from tests.conftest import Command
from tests.safety.fakes import FakeClock, limits, request

Printed = Callable[..., tuple[int, str]]


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


@pytest.fixture
def command(tmp_path: Path, command_here: Command) -> Printed:
    def run(*arguments: str) -> tuple[int, str]:
        code, out, err = command_here(*arguments, "--storage", str(tmp_path))
        return code, out + err

    return run


def test_a_kill_stops_every_sweep_until_it_is_lifted(ledger: Ledger, command: Printed):
    code, printed = command("kill", "--reason", "fire", "--by", "ann")
    assert (code, printed.count("\n")) == (0, 1)
    assert "2 leases are revoked" in printed
    assert ledger.killed() is not None
    assert ledger.pulse("s") == "killed"
    assert command("unkill", "--reason", "out") == (0, "Sweeps may run again\n")
    assert ledger.pulse("s") == "open"
    assert command("unkill", "--reason", "out") == (0, "The kill switch was not thrown\n")


@pytest.mark.parametrize("arguments", [["kill", "--reason", "x"], ["audit", "verify"], ["audit", "show"]])
def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path, command: Printed, arguments: list[str]):
    code, printed = command(*arguments)
    assert (code, printed.count("\n")) == (2, 1)
    assert f"ledger {tmp_path}/ledger.db: no such file" in printed
    assert list(tmp_path.iterdir()) == []


def test_an_audit_that_was_touched_fails_with_its_first_bad_row(
    ledger: Ledger, command: Printed, tmp_path: Path
):
    assert command("audit", "verify") == (
        0,
        "4 rows, each follows from those before it; rows cut off at the end don't show\n",
    )
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute("UPDATE audit SET kind = 'deny' WHERE seq = 2")
    code, printed = command("audit", "verify")
    assert code == 1
    assert printed.startswith("Row 2 was changed, moved or taken out")


def test_rows_are_shown_by_kind_by_sweep_and_from_the_end(ledger: Ledger, command: Printed):
    ledger.open_sweep("t", limits())
    ledger.kill("fire", "ann")
    code, printed = command("audit", "show")
    assert code == 0
    assert printed.count("\n") == len(ledger.audit())
    assert "  kill " in printed
    assert "fire, by ann" in printed
    code, printed = command("audit", "show", "--kind", "reserve", "--kind", "activate", "--last", "2")
    assert [line.split()[2:4] for line in printed.splitlines()] == [["reserve", "s/2"], ["activate", "s/1"]]
    assert command("audit", "show", "--sweep", "t")[1].split()[2:4] == ["open_sweep", "t"]


def test_rows_in_json_are_what_the_chain_was_made_of(ledger: Ledger, command: Printed):
    _, printed = command("audit", "show", "--json")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [(row["seq"], row["kind"], row["hash"]) for row in rows] == [
        (seq, entry.kind, row_hash) for seq, entry, row_hash in ledger.audit()
    ]
    assert rows[-1]["at"] == "2023-11-14T22:13:20.000Z"
    assert rows[-1]["detail"] == {"fence": 1, "holder": "w1"}
