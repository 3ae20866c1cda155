"""Whole rehearsals: nothing is violated, all that a scenario names happens, and a seed is always the same."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from safety.simulation import SCENARIOS, Plan, rehearse
from safety.simulation import rehearsal as rehearsal_module
from tests.safety.simulation.test_faults_found import forfeit_early

# of each of the scenarios: a thousand in all
SEEDS = 72
EVENTS = 30


def tally_of(scenario: str, *, seeds: int = SEEDS, events: int = EVENTS) -> Counter[str]:
    """What happened in some seeds, in which nothing was violated."""
    total: Counter[str] = Counter()
    for seed in range(seeds):
        outcome = rehearse(Plan(scenario=scenario, seed=seed, workers=4, events=events))
        assert outcome.violation == "", (
            f"{scenario}, seed {seed}, event {outcome.events}: {outcome.violation}"
        )
        assert outcome.events == events
        total += outcome.tally
    return total


HAPPENS = {
    "calm": ("reserved", "active", "settled", "revoked", "void"),
    "crowded": ("Hold by budget.concurrent_params", "settled"),
    "crashes": ("governor crashes", "workers died", "unheard calls", "forfeited"),
    "partitions": ("unheard calls", "late calls", "deadlines met", "forfeited"),
    "lost_replies": ("lost replies", "late calls", "unheard calls"),
    "broken_database": ("failed transactions", "pulses without an answer"),
    "liars": (
        "Deny by max_params",
        "Deny by as_reserved",
        "Deny by finite_score",
        "Deny by within_reservation",
    ),
    "killed": ("kills", "revoked", "Deny by killed"),
    "reboot": ("reboots", "governor crashes", "forfeited"),
    "tightened": ("looser limits refused",),
    "runaway": ("Deny by max_params",),
    "approvals": ("decisions to approve", "decisions to reject", "forged decisions refused"),
    "emergencies": ("champions promoted", "lineages reverted", "lineages released"),
    "at_scale": ("governor crashes", "lost replies", "unheard calls", "workers died"),
    "everything": ("kills", "reboots", "failed transactions", "lost replies", "late calls", "void"),
}


@pytest.mark.rehearsals
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_violated_and_what_a_scenario_names_happens(scenario):
    tally = tally_of(scenario)
    assert not [name for name in HAPPENS[scenario] if not tally[name]], tally


def test_nothing_is_refused_where_nothing_goes_wrong():
    tally = rehearse(Plan(scenario="calm", seed=1, events=200)).tally
    rules = {name for name in tally if name.startswith(("Deny", "Hold"))}
    # a driver stops a trial now and then by itself
    assert rules <= {"Deny by operator", "Deny by lease"}
    assert tally["governor crashes"] == tally["unheard calls"] == 0
    assert tally["workers died"] <= tally["revoked"]


def test_a_runaway_is_stopped_in_each_of_its_forms():
    tally = rehearse(Plan(scenario="runaway", seed=0, workers=6, sweeps=3, events=500)).tally
    # it accelerates; it creeps up to a capability's ceiling; it takes ever more of the cluster
    for rule in ("Hold by max_improvement_rate", "Deny by max_performance.reasoning", "Deny by max_params"):
        assert tally[rule], tally
    assert tally["runaways stopped"] == tally["Hold by max_improvement_rate"]


def test_the_same_seed_is_the_same_sequence_of_events_and_the_same_audit():
    first, again = (rehearse(Plan(scenario="everything", seed=3, events=120)) for _ in range(2))
    assert first == again
    other = rehearse(Plan(scenario="everything", seed=4, events=120))
    assert other.digest != first.digest


@pytest.mark.processes
def test_another_process_replays_a_seed_exactly():
    program = (
        "from safety.simulation import Plan, rehearse; "
        "print(rehearse(Plan(scenario='everything', seed=5, events=80)).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {rehearse(Plan(scenario="everything", seed=5, events=80)).digest + "\n"}


def test_a_violation_comes_again_at_the_same_event(monkeypatch):
    forfeit_early(monkeypatch, by_ms=20_000)
    first, again = (rehearse(Plan(scenario="calm", seed=0, events=200)) for _ in range(2))
    assert first.violation.startswith("I5: ")
    assert 0 < first.events < 200
    assert first.told.splitlines() == [
        f"calm, seed 0, event {first.events}: {first.violation}",
        "Again: rsi-ray simulate --scenario calm --seed 0 --workers 8 --sweeps 2 --events 200 --seeds 1",
    ]
    assert (again.events, again.violation, again.digest) == (first.events, first.violation, first.digest)


def test_all_rows_are_compared_now_and_then(monkeypatch):
    monkeypatch.setattr(rehearsal_module, "COMPARED_EVERY", 1)
    assert rehearse(Plan(scenario="everything", seed=6, events=60)).violation == ""
