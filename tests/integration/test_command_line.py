"""The command as people type it: bad input, Ctrl-C, replay, a shared budget.

In a process and a Ray of its own wherever either may matter, and else in the test's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from safety import Ledger
from tests.conftest import Command
from tests.integration.conftest import gone, workers

Refused = Callable[..., str]

TINY = {
    "name": "tiny",
    "trials": 3,
    "concurrent": 1,
    "space": {"depth": [1, 2], "widths": [32, 48]},
    "training": {"epochs": 3, "steps_per_epoch": 2, "batch_size": 4, "warmup_steps": 1},
    "task": {"holdout_size": 32},
    "limits": {"bounds": {"max_params": 10e6, "max_flops": 1e12, "max_memory": 10e9}},
}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from rsi_ray.cli import main; main()", *map(str, arguments)]


def rsi_ray(folder: Path, *arguments: object, seconds: int = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=folder, capture_output=True, text=True, timeout=seconds, check=False
    )


@pytest.fixture
def refused(command_here: Command) -> Refused:
    """The one line that the command refuses its input with."""

    def line(*arguments: str) -> str:
        code, _, printed = command_here(*arguments)
        assert (code, printed.count("\n")) == (2, 1), printed
        assert printed.startswith("rsi-ray: ")
        return printed

    return line


def config(folder: Path, **changes: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nonsense: 1\n", "sweep.yaml:1: nonsense: unknown key"),
        ("name: x\n", "sweep.yaml:1: limits: missing, and required"),
        ("- 1\n", "sweep.yaml:1: expected a mapping"),
        ("trials: -3\n", "sweep.yaml:1: trials: "),
        ("trials: many\n", "sweep.yaml:1: trials: "),
        ("training:\n  learning_rate: .inf\n", "sweep.yaml:2: training.learning_rate: "),
        ("space:\n  widths: [33]\n", "sweep.yaml:1: space.widths: 33"),
        ("name: ../x\n", "sweep.yaml:1: name: "),
        ("limits: {bounds: {max_params: 1.5, max_flops: 1, max_memory: 1}}\n", "limits.bounds.max_params"),
        ("seed: 5000000000\n", "sweep.yaml:1: seed: "),
        ("ledger: nonsense\n", "ledger nonsense: not a database URL"),
        (
            "space: {depth: [1, 1000000], widths: [1000000], head_sizes: [1000]}\n",
            "none of 1000 random specs is under every ceiling",
        ),
        ("baseline: {width: 7}\n", "sweep.yaml:1: baseline.width: expected one of"),
    ],
)
def test_bad_input_gets_one_line_with_file_and_field_and_exit_code_2(
    tmp_path: Path, refused: Refused, text: str, expected: str
):
    limits = "" if "limits" in text or "missing" in expected else f"limits: {json.dumps(TINY['limits'])}\n"
    (tmp_path / "sweep.yaml").write_text(text + (limits if text[0] != "-" else ""))
    assert expected in refused("run", "sweep.yaml")
    assert not (tmp_path / "rsi_results").exists()


def test_a_file_that_is_missing_is_named(refused: Refused):
    assert "nowhere.yaml': cannot be read" in refused("run", "nowhere.yaml")


def test_a_cluster_that_does_not_answer_is_said_to_be_within_seconds(tmp_path: Path):
    found = rsi_ray(tmp_path, "run", config(tmp_path), "--address", "127.0.0.1:9", seconds=60)
    assert (found.returncode, found.stderr.count("\n")) == (1, 1)
    assert "no Ray cluster answers at 127.0.0.1:9: " in found.stderr


def test_an_address_that_no_driver_can_join_is_refused(tmp_path: Path, refused: Refused):
    line = refused("run", str(config(tmp_path)), "--address", "http://127.0.0.1:8265")
    assert "expected HOST:PORT of a cluster's control store" in line


def test_a_space_over_its_ceiling_stops_at_once(tmp_path: Path):
    bounds = {"max_params": 10, "max_flops": 1, "max_memory": 10}
    found = rsi_ray(tmp_path, "run", config(tmp_path, limits={"bounds": bounds}), seconds=60)
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "none of 1000 random specs is under every ceiling" in found.stderr


def test_a_run_that_never_began_has_nothing_to_replay(tmp_path: Path, refused: Refused):
    (tmp_path / "rsi_results" / "cut").mkdir(parents=True)
    (tmp_path / "rsi_results" / "cut" / "run.json").write_text("{}")
    assert "it never began" in refused("replay", "0")


def all_results(folder: Path) -> list[pd.DataFrame]:
    return [pd.read_parquet(path) for path in folder.glob("rsi_results/*/results.parquet")]


def results(folder: Path) -> pd.DataFrame:
    (table,) = all_results(folder)
    return table


@pytest.mark.ray
def test_one_seed_and_one_worker_give_the_same_trials_and_scores_and_any_trial_replays(
    tmp_path: Path, command_here: Command, on_shared_ray: None
):
    path = config(tmp_path)
    assert rsi_ray(tmp_path, "run", path).returncode == 0
    one = results(tmp_path)
    assert command_here("run", str(path))[0] == 0
    (other,) = (found for found in all_results(tmp_path) if not found.equals(one))
    same = [table.drop(columns=["trial_id", "seconds"]) for table in (one, other)]
    pd.testing.assert_frame_equal(*same)
    measured = one[one["score"].notna()]
    code, out, err = command_here("replay", str(int(measured["number"].iloc[-1])))
    assert code == 0, out + err
    assert repr(float(measured["score"].iloc[-1])) in out


@pytest.mark.ray
def test_two_sweeps_in_two_processes_share_one_budget(tmp_path: Path):
    limits = {**TINY["limits"], "cluster": {"trials": 4}}  # type: ignore[dict-item]
    path = config(tmp_path, limits=limits)
    running = [
        subprocess.Popen(command("run", path), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    for process in running:
        process.communicate(timeout=250)
    tables = all_results(tmp_path)
    assert len(tables) == 2
    assert sum(int(table["score"].notna().sum()) for table in tables) == 4
    ledger = Ledger(f"sqlite:///{tmp_path}/rsi_results/ledger.db")
    sweep = next(tmp_path.glob("rsi_results/*/run.json")).parent.name
    spent = {budget.resource: budget.spent for budget in ledger.budgets(sweep) if budget.scope == "cluster"}
    ledger.close()
    assert spent["trials"] == 4


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_within_seconds_and_keeps_what_was_measured(
    tmp_path: Path, number: signal.Signals
):
    training = {**TINY["training"], "epochs": 3, "steps_per_epoch": 150}  # type: ignore[dict-item]
    path = config(tmp_path, training=training, trials=200)
    out = tmp_path / "out"
    with out.open("w") as file:
        process = subprocess.Popen(command("run", path), cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
    wait_for(lambda: "measured" in out.read_text(), 120)
    children = psutil.Process(process.pid).children(recursive=True)
    started = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=40) == 130
    assert time.monotonic() - started < 15
    assert gone(children, 10)
    assert f"interrupted by {number.name}" in out.read_text()
    assert results(tmp_path)["score"].notna().any()
    ledger = Ledger(f"sqlite:///{tmp_path}/rsi_results/ledger.db")
    sweep = next(tmp_path.glob("rsi_results/*/run.json")).parent.name
    assert ledger.open_leases(sweep) == []
    assert ledger.sweep(sweep).state == "closed"
    ledger.close()


@pytest.mark.ray
def test_a_kill_ends_a_sweep_and_none_goes_on_until_it_is_lifted(
    tmp_path: Path, command_here: Command, on_shared_ray: None
):
    training = {**TINY["training"], "steps_per_epoch": 60}  # type: ignore[dict-item]
    path, out = config(tmp_path, training=training, trials=200, scheduler={"kind": "fifo"}), tmp_path / "out"
    with out.open("w") as file:
        process = subprocess.Popen(command("run", path), cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
    wait_for(lambda: "measured" in out.read_text(), 120)
    training_now = workers()
    assert training_now
    assert command_here("kill", "--reason", "a fire", "--by", "ann")[0] == 0
    # the longest lease and its grace
    assert process.wait(timeout=20) == 1
    assert gone(training_now, 10)
    assert "The sweep ended early: killed: a fire" in out.read_text()
    ledger = Ledger(f"sqlite:///{tmp_path}/rsi_results/ledger.db")
    run = next(tmp_path.glob("rsi_results/*/run.json")).parent.name
    assert ledger.open_leases(run) == []
    ledger.close()
    code, _, err = command_here("run", "--resume", run)
    assert (code, "killed: a fire" in err) == (1, True), err
    assert command_here("unkill", "--reason", "it is out")[0] == 0
    measured = int((results(tmp_path)["verdict"] == "measured").sum())
    code, printed, err = command_here("run", "--resume", run, "--trials", str(measured + 1))
    assert code == 0, printed + err
    assert (results(tmp_path)["verdict"] == "measured").sum() == measured + 1
    assert command_here("audit", "verify")[0] == 0


@pytest.mark.ray
def test_a_run_whose_driver_was_killed_is_resumed_with_nothing_lost_or_run_twice(
    tmp_path: Path, command_here: Command, fresh_governor: None
):
    training = {**TINY["training"], "epochs": 3, "steps_per_epoch": 30}  # type: ignore[dict-item]
    path = config(tmp_path, training=training, trials=5, scheduler={"kind": "fifo"})
    out = tmp_path / "out"
    with out.open("w") as file:
        process = subprocess.Popen(command("run", path), cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
    wait_for(lambda: out.read_text().count("measured") >= 2, 150)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait(timeout=10)
    psutil.wait_procs(children, timeout=20)
    (run,) = (found.parent for found in tmp_path.glob("rsi_results/*/run.json"))
    measured = [line.split()[0] for line in out.read_text().splitlines() if "measured" in line]
    path.unlink()  # what it takes lies with the run
    code, printed, err = command_here("run", "--resume", run.name)
    assert code == 0, printed + err
    table = results(tmp_path)
    whole = table[table["verdict"] == "measured"]
    assert len(whole) == 5
    configs = [str(row) for row in whole.filter(like="config/").to_dict("records")]
    assert len(set(configs)) == 5
    assert {f"#{number}" for number in whole["number"]} >= set(measured)
    assert command_here("run", "--resume", run.name)[0] == 0
    pd.testing.assert_frame_equal(results(tmp_path), table)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--resume", "nothing-there"], "no run.json there"),
        (["--example", "imagenet"], "example 'imagenet': expected one of breast_cancer, built_in, digits"),
        (["--example", "digits", "--resume", "x"], "expected one of a file, --example and --resume"),
    ],
)
def test_what_to_run_is_one_thing_and_is_there(refused: Refused, arguments: list[str], expected: str):
    assert expected in refused("run", *arguments)


def wait_for(happened: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def test_the_built_in_file_is_printed_to_start_from(tmp_path: Path):
    found = rsi_ray(tmp_path, "config")
    (tmp_path / "mine.yaml").write_text(found.stdout)
    assert yaml.safe_load(found.stdout)["name"] == "built-in"
    assert os.listdir(tmp_path) == ["mine.yaml"]
