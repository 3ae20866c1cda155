"""What `rsi-ray status` says of trials on a real Ray: governed ones, and one that nobody governs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

import safety
from rsi_ray.plan import Plan
from rsi_ray.sweep import run_sweep
from safety import Ledger, Usage, audit
from safety.actor import connect
from tests.conftest import Command
from tests.integration.conftest import BOUNDS, Maker, ledger_url
from tests.integration.jobs import BehavingJob

pytestmark = pytest.mark.ray

HALF = tune.PlacementGroupFactory([{"CPU": 0.5}])

Status = Callable[..., tuple[int, dict[str, Any], str]]


class Helper:
    """What a trial starts beside itself."""

    def ready(self) -> bool:
        return True


def waits(config: dict[str, Any]) -> None:
    """Trains until a file is there, with an actor of its own."""
    helper = ray.remote(Helper).options(num_cpus=0).remote()
    ray.get(helper.ready.remote())
    Path(config["folder"], config["name"]).touch()
    while not Path(config["folder"], "over").exists():
        time.sleep(0.05)
    tune.report({"score": 1.0})


class Waits(tune.Trainable):
    """The same as a class."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        del config
        return HALF

    def setup(self, config: dict[str, Any]) -> None:
        self.folder = Path(config["folder"])

    def step(self) -> dict[str, Any]:
        (self.folder / self.config["name"]).touch()
        time.sleep(0.05)
        return {"score": 1.0, "done": (self.folder / "over").exists()}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}


def tuner(folder: Path, name: str, trainable: Any = waits) -> tune.Tuner:
    return tune.Tuner(
        trainable if isinstance(trainable, type) else tune.with_resources(trainable, HALF),
        param_space={"folder": str(folder), "name": name},
        run_config=tune.RunConfig(name=name, storage_path=str(folder / "tune"), verbose=0),
    )


@contextmanager
def running(folder: Path, tuners: dict[str, tune.Tuner]) -> Iterator[None]:
    """Each in a thread, one begun after the other, until what is within is done."""
    threads = []
    try:
        for name, one in tuners.items():
            threads.append(threading.Thread(target=one.fit, daemon=True))
            threads[-1].start()
            eventually((folder / name).exists)
        yield
    finally:
        (folder / "over").touch()
        for thread in threads:
            thread.join(60)


def eventually(happened: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def governed(folder: Path, name: str) -> Any:
    limits = {"bounds": BOUNDS}
    free = {"params": 1, "forward_flops": 1, "memory_bytes": 1, "train_flops": 0}
    return safety.govern(
        tuner(folder, name), limits, lambda _: free, ledger=ledger_url(folder), trial_seconds=300
    )


@pytest.fixture
def status(fresh_governor: None, command_here: Command, tmp_path: Path) -> Status:
    """Exit code, what it says of Ray, and its errors."""
    connect(ledger_url(tmp_path))
    Ledger(ledger_url(tmp_path)).close()

    def run() -> tuple[int, dict[str, Any], str]:
        address = ray.get_runtime_context().gcs_address
        code, out, errors = command_here(
            "status", "--json", "--address", address, "--ledger", ledger_url(tmp_path)
        )
        # Tune prints in this process too
        told: dict[str, Any] = json.loads(next(line for line in out.splitlines() if line.startswith("{")))[
            "ray"
        ]
        return code, told, errors

    return run


def incidents(folder: Path) -> list[tuple[str, str]]:
    ledger = Ledger(ledger_url(folder))
    rows = ledger.audit()
    ledger.close()
    assert audit.verify(rows) is None
    return [(entry.rule, entry.key) for _, entry, _ in rows if entry.kind == "incident"]


def test_a_plain_run_of_tune_is_named_and_recorded_once_beside_a_governed_one(status: Status, tmp_path: Path):
    with running(tmp_path, {"mine": governed(tmp_path, "mine")}):
        assert status() == (0, {"looked": True, "governed": 2, "ungoverned": []}, "")
        with running(tmp_path, {"plain": tuner(tmp_path, "plain")}):
            code, told, errors = status()
            assert status()[0] == 1
    assert (code, told["looked"], told["governed"]) == (1, True, 2)
    assert errors == "rsi-ray: 2 processes of Ray Tune's trials hold no lease of this ledger\n"
    # a function's class has a name of Tune's, and calls itself by the function's
    assert {one["says"] or one["class_name"] for one in told["ungoverned"]} == {"Helper", "waits"}
    actors = {one["actor"] for one in told["ungoverned"]}
    assert sorted(incidents(tmp_path)) == sorted(("ungoverned", actor) for actor in actors)
    assert all(one["pid"] and one["job"] and one["audited"] for one in told["ungoverned"])


def test_a_governed_worker_between_two_leases_is_no_false_alarm(status: Status, tmp_path: Path):
    with running(tmp_path, {"mine": governed(tmp_path, "mine")}):
        ledger = Ledger(ledger_url(tmp_path))
        (lease,) = ledger.open_leases("mine")
        ledger.settle(lease.id, lease.fence, Usage())
        assert ledger.open_leases("mine") == []
        ledger.close()
        assert status()[:2] == (0, {"looked": True, "governed": 2, "ungoverned": []})


def test_a_worker_of_a_sweep_that_this_ledger_does_not_know_is_named(status: Status, tmp_path: Path):
    class Boasts(Waits):
        def __repr__(self) -> str:
            return "Governed(elsewhere/1)"

    with running(tmp_path, {"plain": tuner(tmp_path, "plain", Boasts)}):
        code, told, _ = status()
    assert (code, [one["says"] for one in told["ungoverned"]]) == (1, ["Governed(elsewhere/1)"])


def test_workers_of_a_sweep_are_governed_from_their_first_moment_to_their_last(
    status: Status, make_sweep: Maker, tmp_path: Path
):
    plan: Plan = make_sweep(BehavingJob(seconds=1), trials=4, concurrent=2)
    sweep = threading.Thread(target=run_sweep, args=(plan,), daemon=True)
    sweep.start()
    seen = []
    while sweep.is_alive():
        code, told, errors = status()
        assert (code, told["ungoverned"]) == (0, []), errors
        seen.append(told["governed"])
    assert max(seen) == 2
    assert incidents(tmp_path) == []


def test_a_cluster_that_keeps_another_ledger_is_not_compared(
    status: Status, command_here: Command, tmp_path: Path
):
    Ledger(f"sqlite:///{tmp_path}/another.db").close()
    address = ray.get_runtime_context().gcs_address
    code, out, errors = command_here(
        "status", "--address", address, "--ledger", f"sqlite:///{tmp_path}/another.db"
    )
    assert code == 1
    assert "The Ray cluster was not looked at: another ledger is the cluster's" in out
    assert errors.count("\n") == 1


def test_another_process_that_is_no_part_of_the_cluster_may_ask(status: Status, tmp_path: Path):
    with running(tmp_path, {"plain": tuner(tmp_path, "plain", Waits)}):
        program = "from rsi_ray.cli import main; main()"
        address = ray.get_runtime_context().gcs_address
        done = subprocess.run(
            [sys.executable, "-c", program, "status", "--ledger", ledger_url(tmp_path), "--address", address],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    assert "UNGOVERNED Waits: actor " in done.stdout
    assert "1 processes of Ray Tune's trials hold no lease of this ledger" in done.stderr
