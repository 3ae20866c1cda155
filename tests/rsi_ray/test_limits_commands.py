"""The commands that show and tighten the limits of every sweep."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety import Allow, LeaseLost, Ledger
from safety.identity import KEY_FILE, identity_in
from tests.conftest import Command
from tests.safety.fakes import FakeClock, limits, request

FILE = "bounds: {{max_params: {params}, max_flops: 1e6, max_memory: 1e6}}\nmax_generations: 3\n"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db", FakeClock().clock())
    opened.open_sweep("s", limits())
    yield opened
    opened.close()


def tighten(command: Command, folder: Path, params: int) -> tuple[int, str]:
    file = folder / "limits.yaml"
    file.write_text(FILE.format(params=params))
    code, out, err = command("limits", "tighten", str(file), "--storage", str(folder), "--by", "ann")
    return code, out + err


def test_limits_are_tightened_under_a_running_trial_signed_and_shown(
    ledger: Ledger, command_here: Command, tmp_path: Path
):
    assert ledger.reserve(request()) == Allow()
    grant = ledger.activate("s/1", "d1", "w1")
    code, printed = tighten(command_here, tmp_path, 99)
    assert (code, "Version 1" in printed, "by ann, signed by key" in printed) == (0, True, True)
    with pytest.raises(LeaseLost, match="over the ceiling of 99"):
        ledger.renew(grant.lease, grant.fence)
    code, shown, _ = command_here("limits", "show", "--storage", str(tmp_path))
    assert code == 0
    assert printed.splitlines()[0] == shown.splitlines()[0]
    assert "  bounds.max_params: 99\n" in shown
    assert "cluster" not in shown


def test_who_tightens_limits_can_steer_no_terminal(ledger: Ledger, command_here: Command, tmp_path: Path):
    (tmp_path / "limits.yaml").write_text(FILE.format(params=99))
    where = "--storage", str(tmp_path)
    _, out, _ = command_here(
        "limits", "tighten", "limits.yaml", *where, "--by", "ann\x1b[2J\nVersion 9\u202e"
    )
    _, shown, _ = command_here("limits", "show", *where)
    for printed in (out, shown):
        assert printed.startswith("Version 1, ")
        assert "by ann\\x1b[2J\\nVersion 9\\u202e, " in printed.splitlines()[0]


def test_limits_are_tightened_without_a_key_too(ledger: Ledger, command_here: Command, tmp_path: Path):
    identity_in(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    code, printed = tighten(command_here, tmp_path, 99)
    assert (code, "by ann, not signed" in printed) == (0, True)
    assert "the version is not signed: " in printed
    assert ledger.sweep("s").limits.bounds.max_params == 99


def test_looser_limits_are_refused_in_one_line(ledger: Ledger, command_here: Command, tmp_path: Path):
    tighten(command_here, tmp_path, 99)
    code, printed = tighten(command_here, tmp_path, 100)
    assert code == 1
    assert printed == (
        "rsi-ray: bounds.max_params: 100 is asked for and 99 is in force; loosening takes an approval: ask "
        "for it with `rsi-ray limits loosen`\n"
    )


def test_a_version_that_was_changed_in_the_database_shows(
    ledger: Ledger, command_here: Command, tmp_path: Path
):
    tighten(command_here, tmp_path, 99)
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute("UPDATE limit_versions SET by = 'bob'")
    _, shown, _ = command_here("limits", "show", "--storage", str(tmp_path))
    assert "by bob, signed by key" in shown
    assert "does NOT hold" in shown
    _, line, _ = command_here("limits", "show", "--json", "--storage", str(tmp_path))
    told = json.loads(line)
    assert (told["authentic"], told["limits"]["bounds"]["max_params"]) == (False, 99)


def test_without_a_version_each_sweep_is_bound_by_its_own(
    ledger: Ledger, command_here: Command, tmp_path: Path
):
    code, shown, _ = command_here("limits", "show", "--storage", str(tmp_path))
    assert (code, shown) == (0, "No limits bind every sweep; each is bound by its own\n")
