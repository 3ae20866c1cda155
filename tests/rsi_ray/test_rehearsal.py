"""The command that rehearses failures."""

from __future__ import annotations

import pytest

from rsi_ray.rehearsal import summary
from safety import budgets
from safety.simulation import SCENARIOS, Plan, rehearse
from tests.conftest import Command


def test_a_rehearsal_ends_with_what_happened(command_here: Command):
    code, printed, _ = command_here("simulate", "--seeds", "1", "--events", "40", "--scenario", "liars")
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].startswith("1 rehearsals, 40 events, ")
    assert lines[1].startswith("Leases: ")
    assert "max_params " in lines[2]
    assert "calls " in lines[3]
    assert lines[4:] == ["Violations: 0"]


def test_every_scenario_is_rehearsed_where_none_is_named(command_here: Command):
    code, printed, _ = command_here("simulate", "--seeds", "1", "--events", "5")
    assert (code, printed.splitlines()[0].split(",")[0]) == (0, f"{len(SCENARIOS)} rehearsals")


def test_a_violation_is_told_with_the_command_that_shows_it_again(
    command_here: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(budgets, "whole", lambda claim: {})
    code, printed, _ = command_here("simulate", "--scenario", "crashes", "--seed", "7", "--events", "150")
    told, again = printed.splitlines()
    assert code == 1
    assert told.startswith("crashes, seed 7, event ")
    assert ": I2: " in told
    options = "--scenario crashes --seed 7 --workers 8 --sweeps 2 --events 150 --seeds 1"
    assert again == f"Again: rsi-ray simulate {options}"
    assert command_here(*again.split()[2:])[1] == printed


def test_a_scenario_that_is_not_there_is_refused_with_those_that_are(command_here: Command):
    code, _, told = command_here("simulate", "--scenario", "earthquake")
    assert (code, told.count("\n")) == (2, 1)
    assert "scenario earthquake: expected one of calm, " in told


def test_counts_come_in_their_order_the_largest_first():
    outcome = rehearse(Plan(scenario="calm", seed=0, events=1))
    outcome.tally.clear()
    outcome.tally.update({"reserved": 3, "Deny by b": 1, "Deny by a": 2, "Hold by c": 2, "kills": 1})
    assert list(summary([outcome], seconds=0.5))[1:] == [
        "Leases: 3 admitted, 0 begun, 0 settled, 0 forfeited, 0 revoked, 0 void",
        "Refused: a 2, c 2, b 1",
        "Befell: kills 1",
        "Violations: 0",
    ]
    outcome.tally.clear()
    assert "Refused: nothing" in list(summary([outcome], seconds=0.5))
