"""What `rsi-ray status` says of a ledger, in JSON and in lines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rsi_ray.status import MOST_LEASES, lines, status
from safety import Allow, Governor, Ledger, Report
from safety.drills import Canary
from safety.errors import ClusterUnreachable
from safety.identity import identity_in
from tests.conftest import Command
from tests.safety.fakes import FakeClock, limits, request

HOLDER = "12@10.0.0.1"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: FakeClock) -> Iterator[Ledger]:
    """A sweep with a lease that began and one that is reserved, near a ceiling."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", clock.clock())
    ledger.open_sweep("s", limits(cluster={"trials": 8}, sweep={"trials": 4}), lineage="line")
    for key in ("s/1", "s/2"):
        assert ledger.reserve(request(key)) == Allow()
    grant = ledger.activate("s/1", "d1", HOLDER)
    usage = grant.used(reports=1, elapsed_ms=1)
    Governor(ledger).report("s/1", Report(score=0.5, domains={"reasoning": 0.8}, usage=usage))
    yield ledger
    ledger.close()


def told(ledger: Ledger, clock: FakeClock, kill_file: str | None = None) -> dict[str, Any]:
    return status(ledger.overview(), clock.clock(), url="the ledger", kill_file=kill_file)


def test_a_running_sweep_is_told_with_leases_budgets_and_ceilings(ledger: Ledger, clock: FakeClock):
    clock.pass_ms(5_000)
    found = told(ledger, clock)
    (sweep,) = found["sweeps"]
    assert [sweep[name] for name in ("name", "state", "reason", "lineage")] == ["s", "open", "", "line"]
    assert sweep["leases"] == [
        {"key": "s/1", "state": "active", "holder": HOLDER, "seconds_left": 10.0},
        {"key": "s/2", "state": "reserved", "holder": "", "seconds_left": None},
    ]
    trials = next(budget for budget in sweep["budgets"] if budget["resource"] == "trials")
    assert trials == {"resource": "trials", "spent": 0, "held": 2, "overrun": 0, "cap": 4, "percent": 50.0}
    assert sweep["ceilings"] == [{"domain": "reasoning", "score": 0.8, "ceiling": 0.95, "percent": 84.2}]
    assert (found["killed"], found["limits"], found["drill"], found["closed_sweeps"]) == (None, None, None, 0)
    assert [budget["percent"] for budget in found["budgets"] if budget["cap"]] == [25.0]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_deadline_of_another_hosts_clock_is_not_told(ledger: Ledger, clock: FakeClock):
    clock.restart()
    found = told(ledger, clock)
    assert found["sweeps"][0]["leases"][0]["seconds_left"] is None
    assert f"    s/1: active, held by {HOLDER}, on another clock" in lines(found)


def test_people_read_the_same(ledger: Ledger, clock: FakeClock):
    found = told(ledger, clock)
    assert lines(found) == [
        f"Ledger the ledger, {found['at']}",
        "Kill switch: not thrown",
        "Limits: none bind every sweep; each is bound by its own",
        "Drill of the kill switch: none yet",
        "Cluster budget trials: 25.0% of 8, spent 0, held 2",
        "Sweep s, lineage line, open",
        "  its budget trials: 50.0% of 4, spent 0, held 2",
        "  reasoning: 84.2% of its ceiling 0.95",
        "  2 open leases",
        f"    s/1: active, held by {HOLDER}, 15.0 s to its deadline",
        "    s/2: reserved",
        "1 sweeps are not closed, 0 are",
    ]


def test_what_stops_a_cluster_is_told(ledger: Ledger, clock: FakeClock, tmp_path: Path):
    ledger.tighten(limits(), "ann", identity_in(tmp_path))
    ledger.record_drill([Canary(node="n", kind="deaf", latency_ms=None)], 2000, "bob")
    ledger.open_sweep("f", limits(), is_drill=True)
    ledger.freeze("f", "too good\n\x1b[2J")
    assert "Sweep f, lineage f, frozen: too good\\n\\x1b[2J" in lines(told(ledger, clock))
    ledger.kill("fire", "eve")
    found = told(ledger, clock, kill_file="smoke")
    text = "\n".join(lines(found))
    assert "by eve: fire\nThe file KILL stands beside the ledger: smoke\nLimits: version 1, " in text
    assert "by bob, MISSED its target, nothing begins: deaf on n: not dead" in text
    assert "signature" not in text
    assert [sweep["state"] for sweep in found["sweeps"]] == ["killed", "killed"]
    ledger.record_drill([Canary(node="n", kind="deaf", latency_ms=1)], 2000, "bob")
    assert "by bob, passed" in "\n".join(lines(told(ledger, clock)))


def test_limits_that_nobody_signed_and_use_beyond_a_hold_show(ledger: Ledger, clock: FakeClock):
    ledger.tighten(limits(), "ann")
    found = told(ledger, clock)
    found["budgets"] = [{**budget, "overrun": 1234} for budget in found["budgets"]]
    text = "\n".join(lines(found))
    assert "by ann; its signature does NOT hold" in text
    assert "held 2, overrun 1,234" in text


def test_a_great_many_leases_are_cut_short_those_that_end_next_come_first(clock: FakeClock, tmp_path: Path):
    ledger = Ledger(f"sqlite:///{tmp_path}/many.db", clock.clock())
    ledger.open_sweep("s", limits())
    for number in range(MOST_LEASES + 5):
        ledger.reserve(request(f"s/{number}"))
    ledger.activate("s/22", "d1", "2@h")
    clock.pass_ms(1)
    ledger.activate("s/21", "d1", "1@h")
    found = lines(told(ledger, clock))
    ledger.close()
    assert [line.split(":")[0] for line in found if line.startswith("    s/")][:3] == [
        "    s/22",
        "    s/21",
        "    s/0",
    ]
    assert found[-2] == "    and 5 more, see --json"
    assert len(found) == 6 + MOST_LEASES + 2


def test_the_command_prints_either(ledger: Ledger, command_here: Command, tmp_path: Path):
    (tmp_path / "KILL").write_text("smoke")
    arguments = ("status", "--ledger-only", "--storage", str(tmp_path))
    code, out, errors = command_here(*arguments)
    assert (code, errors) == (0, "")
    assert out.startswith(f"Ledger sqlite:///{tmp_path}/ledger.db, ")
    assert "The file KILL stands beside the ledger: smoke\n" in out
    code, out, errors = command_here(*arguments, "--json")
    assert (code, errors, out.count("\n")) == (0, "", 1)
    assert json.loads(out)["ray"]["looked"] is False


def test_what_can_not_be_asked_for_is_told_in_one_line(ledger: Ledger, command_here: Command, tmp_path: Path):
    code, out, errors = command_here("status", "--ledger-only", "--address", "x", "--storage", str(tmp_path))
    assert (code, out) == (2, "")
    assert errors == "rsi-ray: status: expected one of --address and --ledger-only\n"
    code, out, errors = command_here("status", "--ledger-only", "--storage", str(tmp_path / "none"))
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert "no such file" in errors


@pytest.mark.parametrize("name", ["kill", "status", "serve"])
def test_who_watches_waits_for_neither_torch_nor_ray(name: str):
    program = (
        "import sys; from rsi_ray.cli import main\n"
        f"sys.argv = ['rsi-ray', '{name}', '--help']\n"
        "try: main()\n"
        "except SystemExit: print({'torch', 'ray', 'optuna'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert name in done.stdout


def test_a_cluster_that_runs_and_does_not_say_what_is_no_success(
    ledger: Ledger, command_here: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def silent(_address: str | None) -> None:
        raise ClusterUnreachable("the Ray cluster does not say what runs on it: silence")

    monkeypatch.setattr("safety.cluster.cluster_at", silent)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    code, out, errors = command_here("status", "--storage", str(tmp_path))
    assert code == 1
    assert errors == "rsi-ray: the Ray cluster does not say what runs on it: silence\n"
    assert "was not looked at" in out
