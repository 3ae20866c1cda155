"""Runs as jobs of a real Ray: carried there, followed, stopped, and gone on with."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from bench.hosts import Cluster, cluster, network, obstacle
from safety import Ledger
from tests.integration.test_command_line import TINY

pytestmark = pytest.mark.ray

OWN = """
from pathlib import Path
import optuna
import rsi_ray, safety, search_spaces

class Sampler(optuna.samplers.RandomSampler):
    def __init__(self, seed=None):
        super().__init__(seed)
        files = [__file__, rsi_ray.__file__, safety.__file__, search_spaces.__file__]
        Path(HERE, "came").write_text("\\n".join(files))
"""


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    """A head that is one's own: a job joins the Ray that was started last on its machine."""
    if reason := obstacle():
        pytest.skip(f"needs a host of its own: {reason}")
    with network(2) as made, cluster(made, dashboard=True) as found:
        yield found


@pytest.fixture
def command(ray: Cluster, tmp_path: Path) -> Command:
    """Exit code, output and errors of the command on the cluster's head."""

    def run(*words: str) -> tuple[int, str, str]:
        here = ["ip", "netns", "exec", ray.head.space, sys.executable, "-m", "rsi_ray", *words]
        variables = {**ray.environment, "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:8265"}
        told: dict[str, Any] = {"cwd": tmp_path, "env": variables, "capture_output": True, "text": True}
        done = subprocess.run(here, timeout=200, check=False, **told)
        return done.returncode, done.stdout, done.stderr

    return run


def file(folder: Path, **changes: Any) -> None:
    (folder / "sweep.yaml").write_text(yaml.safe_dump({**TINY, **changes}))


def submitted(command: Command, folder: Path, *words: str) -> tuple[int, str, str]:
    run = ("--storage", str(folder / "runs"), "--python", sys.executable, *words)
    return command("submit", "sweep.yaml", *run)


def id_in(printed: str) -> str:
    return printed.split(":")[0].removeprefix("Job ").strip()


def state(command: Command, id: str) -> dict[str, Any]:
    code, out, err = command("status", id, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_job_runs_with_what_its_file_names_and_own_classes_and_these_packages(
    tmp_path: Path, command: Command
):
    (tmp_path / "mine.py").write_text(OWN.replace("HERE", repr(str(tmp_path))))
    (tmp_path / "limits.yaml").write_text(yaml.safe_dump(TINY["limits"]))
    file(tmp_path, sampler="mine:Sampler", limits="limits.yaml")
    code, out, err = submitted(command, tmp_path, "--", "--trials", "2")
    assert code == 0, out + err
    assert "Best: #" in out
    came = (tmp_path / "came").read_text().splitlines()
    assert all("/runtime_resources/" in path for path in came), came
    (table,) = (pd.read_parquet(path) for path in tmp_path.glob("runs/tiny-*/results.parquet"))
    assert table["score"].notna().sum() == 2
    told = state(command, id_in(out))
    assert (told["state"], told["exit_code"], told["metadata"]["file"]) == ("SUCCEEDED", 0, "sweep.yaml")
    assert "Best: #" in command("logs", id_in(out))[1]


def test_a_job_that_is_stopped_closes_its_sweep_and_another_goes_on_with_it(tmp_path: Path, command: Command):
    file(tmp_path, trials=40)
    code, out, err = submitted(command, tmp_path, "--no-follow")
    assert code == 0, err
    until = time.monotonic() + 120
    while not any(path.stat().st_size for path in tmp_path.glob("runs/tiny-*/study.log")):
        assert time.monotonic() < until, command("logs", id_in(out))[1]
        time.sleep(0.5)
    code, stopped, err = command("stop", id_in(out))
    assert (code, err) == (0, "")
    assert stopped.startswith(f"Job {id_in(out)}: stopped")
    ledger = Ledger(f"sqlite:///{tmp_path}/runs/ledger.db")
    assert ledger.overview().sweeps == []
    ledger.close()
    (run,) = (path.parent.name for path in tmp_path.glob("runs/tiny-*/run.json"))
    code, out, err = submitted(command, tmp_path, "--resume", run, "--", "--trials", "6")
    assert code == 0, out + err
    assert f"Run {run}, " in out


def test_what_the_job_says_of_bad_input_and_its_exit_code_are_the_commands_own(
    tmp_path: Path, command: Command
):
    file(tmp_path)
    code, out, _ = submitted(command, tmp_path, "--", "--resume", "nowhere")
    assert code == 2
    assert "run: expected one of a file, --example and --resume" in out


@pytest.mark.parametrize("words", [("status", "nope"), ("logs", "nope"), ("stop", "nope")])
def test_a_job_that_is_not_known_is_said_to_be(command: Command, words: tuple[str, ...]):
    code, _, err = command(*words)
    assert (code, err) == (2, "rsi-ray: job nope: Job nope does not exist.\n")


def test_what_is_wrong_here_is_never_submitted(tmp_path: Path, command: Command):
    for changes, expected in (
        ({"trials": -1}, "sweep.yaml:"),
        ({"ledger": "sqlite:///ledger.db"}, "would lie in the job's own folder"),
    ):
        file(tmp_path, **changes)
        code, _, err = submitted(command, tmp_path)
        assert (code, err.count("\n")) == (2, 1)
        assert expected in err


def test_a_cluster_that_is_not_there_is_said_to_be(tmp_path: Path, command: Command):
    code, _, err = command("status", "some", "--address", "http://127.0.0.1:9")
    assert (code, err.count("\n")) == (1, 1)
    assert "cluster http://127.0.0.1:9: " in err


def test_the_doctor_looks_at_every_node_and_tells_what_to_do(tmp_path: Path, command: Command, ray: Cluster):
    storage = ("--storage", str(tmp_path / "runs"), "--address", ray.address)
    code, out, err = command("doctor", *storage, "--json")
    found = {line["about"]: line for line in map(json.loads, out.splitlines())}
    assert (code, err) == (0, ""), out
    assert found["nodes"]["told"] == "2 alive, and each runs this project"
    assert found["authentication"]["told"] == "nobody is let in without the token"
    assert found["dashboard"]["told"] == "at 127.0.0.1:8265, for its own host alone"
    assert {line["level"] for line in found.values()} <= {"ok", "warn"}
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_doctor_reports_a_storage_that_can_not_be_written(command: Command, ray: Cluster):
    code, out, err = command("doctor", "--storage", "/proc/none", "--address", ray.address)
    assert (code, err) == (1, "")
    assert "FAIL  storage" in out
    assert "/proc/none can't be written: " in out
