"""Drivers that are processes, on one cluster: they race for a budget, and are killed together."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.asking import limits, wish
from bench.drivers import Race, run_race, violations
from bench.hosts import ROOT
from bench.place import on_this_ray
from bench.ways import WAYS
from safety import Ledger
from tests.integration.conftest import ledger_url

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

NUMBERS = r"cluster budget train_gflop: asked (\d+), spent ([\d,]+), held (\d+), cap ([\d,]+)"
LEASE, GRACE = 6, 3


def test_eight_drivers_that_race_for_the_last_percent_get_what_fits_and_a_denial_with_its_numbers(
    fresh_governor: None, tmp_path: Path
):
    race = Race(drivers=8, cap=1000, least=3, most=3)
    outcome = run_race(on_this_ray(tmp_path), race)
    assert sum(asked.claims for asked in outcome.asked) == 3
    assert sum(asked.gflop for asked in outcome.asked) == 9
    for denied in outcome.asked:
        assert denied.rule == "budget.train_gflop"
        found = re.fullmatch(NUMBERS, denied.reason)
        assert found, denied.reason
        asked, spent, held, cap = (int(number.replace(",", "")) for number in found.groups())
        assert (asked, spent, held, cap) == (3, 999, 0, 1000)
    assert outcome.violations == ()


def test_budgets_that_are_not_what_their_leases_say_are_seen(tmp_path: Path):
    ledger = Ledger(ledger_url(tmp_path))
    ledger.open_sweep("s", limits(10))
    ledger.reserve(wish("s", 1, 3))
    assert violations(ledger) == []
    with ledger._transaction() as connection:
        connection.exec_driver_sql("UPDATE budgets SET held = held + 1, spent = 1 WHERE scope = 'cluster'")
        connection.exec_driver_sql("UPDATE budgets SET target = 2 WHERE resource = 'train_gflop'")
    found = violations(ledger)
    ledger.close()
    assert "I2: cluster trials: held 2, its open leases 1" in found
    assert "I2: cluster trials: spent 1, leases that ended 0" in found
    assert "I1: cluster train_gflop: spent 1, held 4, cap 2" in found


@pytest.mark.alone
def test_the_kill_bench_measures_each_way_to_throw_the_switch_and_all_workers_die_in_time():
    command = [sys.executable, "-m", "bench.kill", "--local", "--repetitions", str(len(WAYS))]
    seconds = ["--lease", str(LEASE), "--grace", str(GRACE)]
    done = subprocess.run([*command, *seconds], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {way: told["worst_s"] > 0 for way, told in found["ways"].items()} == dict.fromkeys(WAYS, True)
    assert 0 < found["p50_s"] <= found["p99_s"] <= LEASE + GRACE
    assert (found["repetitions"], found["workers"], found["drivers"]) == (len(WAYS), 3, 2)
    assert (found["worst_fault_s"], found["faults"], found["no_faults"]) == (None, {}, "--local")
