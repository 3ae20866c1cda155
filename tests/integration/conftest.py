"""One real Ray for the slow tests, and small sweeps on it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import ray
from ray.tune.schedulers import FIFOScheduler

from rsi_ray.plan import Plan
from rsi_ray.samplers import SAMPLERS
from safety import Budget, Lease, Ledger, limits_from_dict
from safety.governor_process import NAME, NAMESPACE
from tests.integration.jobs import REPORTS, BehavingJob
from tests.s3_server import KEYS

BOUNDS = {"max_params": 1000, "max_flops": 10**9, "max_memory": 10**9, "max_performance": {"danger": 0.5}}


CPUS = 2
FREE_SECONDS = 30


def start_ray() -> None:
    with pytest.MonkeyPatch.context() as patch:
        # its workers inherit it, whichever driver they work for
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        for name, value in KEYS.items():
            patch.setenv(name, value)
        ray.init(address="local", num_cpus=CPUS, log_to_driver=False, logging_level=logging.ERROR)


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[None]:
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    start_ray()
    yield
    ray.shutdown()


def have_it_free() -> None:
    """Start Ray again where it keeps the processors of workers that are gone: a sweep would wait for ever."""
    until = time.monotonic() + FREE_SECONDS
    while ray.available_resources().get("CPU", 0) < CPUS:
        if time.monotonic() > until:
            logging.warning("Ray still kept processors after the test before: it is started again")
            ray.shutdown()
            start_ray()
            return
        time.sleep(0.1)


def end_governor() -> None:
    """Kill the shared Ray's governor, if there is one."""
    try:
        ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))
    except ValueError:
        return


@pytest.fixture
def fresh_governor(shared_ray: None) -> Iterator[None]:
    """Each test has a ledger of its own, so each needs a governor of its own."""
    have_it_free()
    yield
    end_governor()


@pytest.fixture
def on_shared_ray(fresh_governor: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in processes of their own join the shared Ray: another one takes seconds to start."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)


def workers(called: str = "") -> list[psutil.Process]:
    """What trains or evaluates on any Ray that this test, or a command of its, has started."""
    names = ((one, _name(one)) for one in psutil.Process().children(recursive=True))
    return [one for one, name in names if called in name and _is_worker(name)]


# what Ray, and Ray Train beside its trainings, keep running
IDLE = ("Agent", "IDLE", "PlacementGroupCleaner", "_AutoscalingCoordinatorActor", "DatasetManager")


def _name(process: psutil.Process) -> str:
    """Empty where it has ended meanwhile."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _is_worker(name: str) -> bool:
    return name.startswith("ray::") and not name.endswith(IDLE) and "Governor" not in name


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


Maker = Callable[..., Plan]


@pytest.fixture
def make_sweep(tmp_path: Path, fresh_governor: None) -> Maker:
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def make(job: BehavingJob, *, limits: dict[str, Any] | None = None, **changes: Any) -> Plan:
        values: dict[str, Any] = {
            "name": "tested",
            "folder": tmp_path / "run",
            "ledger_url": ledger_url(tmp_path),
            "limits": limits_from_dict({"bounds": BOUNDS, **(limits or {})}),
            "space": job.space,
            "job": job,
            "sampler": SAMPLERS["tpe"](0),
            "reports": REPORTS,
            "trials": 6,
            "concurrent": 1,
            "scheduler": FIFOScheduler,
        }
        return Plan(**{**values, **changes})

    return make


def ledger_url(folder: Path) -> str:
    return f"sqlite:///{folder}/ledger.db"


def open_leases(sweep: Plan) -> list[Lease]:
    ledger = Ledger(sweep.ledger_url)
    found = ledger.open_leases(sweep.name)
    ledger.close()
    return found


def budgets(sweep: Plan) -> dict[tuple[str, str], Budget]:
    ledger = Ledger(sweep.ledger_url)
    found = {(budget.scope.split(":")[0], budget.resource): budget for budget in ledger.budgets(sweep.name)}
    ledger.close()
    return found


def audit_kinds(sweep: Plan) -> list[str]:
    ledger = Ledger(sweep.ledger_url)
    kinds = [entry.kind for _, entry, _ in ledger.audit()]
    ledger.close()
    return kinds
