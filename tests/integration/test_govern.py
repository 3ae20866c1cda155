"""`safety.govern` around Tuners as people have them, on a real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.tune.stopper import MaximumIterationStopper
from torch import nn

import safety
from safety import Ledger, audit

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
BOUNDS = {"max_params": 100, "max_flops": 10**9, "max_memory": 10**9}


def cost(config: dict[str, Any]) -> dict[str, Any]:
    return {"params": config["width"], "train_flops": 3 * 10**9}


def three_reports(config: dict[str, Any], *, offset: float = 0.0, folder: Path | None = None) -> None:
    if folder:
        (folder / f"{config['width']}.began").touch()
    for step in range(1, 4):
        tune.report({"score": offset + config["width"] * step, "loss": {"train": 1.0 / step}})


def run_config(folder: Path, **changes: Any) -> tune.RunConfig:
    return tune.RunConfig(**{"name": "run", "storage_path": str(folder), "verbose": 0, **changes})


def best(**changes: Any) -> tune.TuneConfig:
    return tune.TuneConfig(**{"metric": "score", "mode": "max", "reuse_actors": True, **changes})


@pytest.fixture
def govern(fresh_governor: None, tmp_path: Path) -> Callable[..., Any]:
    def made(tuner: tune.Tuner, limits: dict[str, Any] | None = None, **options: Any) -> Any:
        whole = {"bounds": BOUNDS, "sweep": {"trials": 50}, **(limits or {})}
        return safety.govern(tuner, whole, **{"trial_seconds": 60, **options})

    return made


def books(folder: Path, sweep: str = "run") -> tuple[list[Any], dict[str, int]]:
    """The audit, which verifies, and what the sweep has spent; nothing is open."""
    ledger = Ledger(f"sqlite:///{folder}/ledger.db")
    rows = ledger.audit()
    assert audit.verify(rows) is None
    assert ledger.open_leases(sweep) == []
    spent = {b.resource: b.spent for b in ledger.budgets(sweep) if b.scope == f"sweep:{sweep}"}
    ledger.close()
    return [entry for _, entry, _ in rows], spent


class Seen(tune.Callback):
    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = []
        self.completed: list[str] = []

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any):
        self.results.append(result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any):
        self.completed.append(trial.trial_id)


class SavesSlowly(tune.Trainable):
    """Reports no number, and takes longer to save than until its lease would be renewed."""

    def step(self) -> dict[str, Any]:
        return {"score": float("nan")}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        time.sleep(6)
        (Path(checkpoint_dir) / "saved").touch()


def test_a_trial_whose_report_is_denied_saves_its_checkpoint_before_it_ends(
    govern: Callable[..., Any], tmp_path: Path
):
    every_step = tune.CheckpointConfig(checkpoint_frequency=1)
    run = run_config(tmp_path, checkpoint_config=every_step)
    tuner = tune.Tuner(SavesSlowly, tune_config=best(), run_config=run)
    grid = govern(tuner, {"lease_seconds": 12}, trial_seconds=300, meter=None).fit()
    assert (grid.num_errors, (Path(grid[0].checkpoint.path) / "saved").exists()) == (0, True)
    entries, _ = books(tmp_path)
    assert [entry.kind for entry in entries if entry.kind in ("incident", "revoke", "settle", "fail")] == [
        "incident",
        "revoke",
        "settle",
    ]


def test_a_grid_of_a_function_runs_as_it_was_and_its_value_over_the_ceiling_never_starts(
    govern: Callable[..., Any], tmp_path: Path
):
    seen = Seen()
    function = tune.with_parameters(three_reports, offset=0.5, folder=tmp_path)
    tuner = tune.Tuner(
        tune.with_resources(function, {"cpu": 2}),
        param_space={"width": tune.grid_search([3, 400, 5]), "layer": nn.ReLU},
        tune_config=best(reuse_actors=False),
        run_config=run_config(tmp_path, callbacks=[seen]),
    )
    results = govern(tuner, cost=cost, reports=3).fit()
    assert sorted(path.stem for path in tmp_path.glob("*.began")) == ["3", "5"]
    assert [(r.metrics or {}).get("score") for r in results] == [9.5, None, 15.5]
    assert results.get_best_result().config == {"width": 5, "layer": nn.ReLU}
    assert results.num_errors == 0
    assert [result["loss"]["train"] for result in seen.results[:3]] == [1.0, 0.5, 1 / 3]
    assert len(seen.completed) == 3
    folder = Path(results[0].path)
    assert len((folder / "progress.csv").read_text().splitlines()) == 4
    assert json.loads((folder / "result.json").read_text().splitlines()[-1])["lease"]["reports"] == 3
    assert list(folder.glob("events.out.tfevents*"))
    entries, spent = books(tmp_path)
    assert (spent["trials"], spent["train_gflop"]) == (2, 6)
    assert [(e.rule, json.loads(e.detail)["reason"]) for e in entries if e.kind == "deny"] == [
        ("max_params", "400 parameters is over the ceiling of 100")
    ]


def test_a_searcher_and_asha_work_within_a_budget_that_another_sweep_shares(
    govern: Callable[..., Any], tmp_path: Path
):
    def tuner(name: str) -> tune.Tuner:
        return tune.Tuner(
            three_reports,
            param_space={"width": tune.randint(1, 150), "constant": 7},
            tune_config=best(
                search_alg=OptunaSearch(seed=0),
                scheduler=ASHAScheduler(max_t=3, grace_period=1, reduction_factor=2),
                num_samples=5,
                max_concurrent_trials=2,
            ),
            run_config=run_config(tmp_path, name=name, stop={"training_iteration": 3}),
        )

    limits = {"cluster": {"trials": 7}, "sweep": {"trials": 20}}
    first = govern(tuner("first"), limits, cost=cost, reports=3).fit()
    assert len(first) == 5
    assert all(r.config["width"] <= 100 and r.config["constant"] == 7 for r in first)
    second = govern(tuner("second"), limits, cost=cost, reports=3).fit()
    assert len(second) == 2
    entries, spent = books(tmp_path, "first")
    assert (spent["trials"], books(tmp_path, "second")[1]["trials"]) == (5, 2)
    assert spent["train_gflop"] == sum(r.metrics["training_iteration"] for r in first)
    keys = [entry.key for entry in entries if entry.kind == "reserve"]
    assert len(keys) == len(set(keys)) == 7  # gate 1's lease is the worker's


def trains_a_model(config: dict[str, Any]) -> None:
    folder = Path(config["folder"])
    model = nn.Linear(config["width"], config["width"], bias=False)
    (folder / f"{config['width']}.built").touch()
    with suppress(Exception):  # whoever catches it is refused as well
        model(torch.ones(4, config["width"])).sum().backward()
        (folder / f"{config['width']}.ran").touch()
    for _ in range(2):
        tune.report({"score": float(config["width"])})


@pytest.mark.parametrize("priced", [False, True])
def test_a_model_that_is_larger_than_allowed_or_told_never_runs(
    govern: Callable[..., Any], tmp_path: Path, priced: bool
):
    tuner = tune.Tuner(
        trains_a_model,
        param_space={"width": tune.grid_search([5, 20]), "folder": str(tmp_path)},
        tune_config=best(),
        run_config=run_config(tmp_path),
    )
    bounds = {**BOUNDS, "max_params": 1000 if priced else 100}
    told = {"cost": lambda config: {"params": 25}} if priced else {}
    results = govern(tuner, {"bounds": bounds}, **told).fit()
    assert sorted(path.name for path in tmp_path.glob("*.ran")) == ["5.ran"]
    small, large = results
    assert small.metrics["score"] == 5.0
    assert "score" not in large.metrics
    assert ("priced 25" if priced else "400 parameters is over the ceiling of 100") in large.metrics[
        "lease_refused"
    ]
    incidents = [entry.rule for entry in books(tmp_path)[0] if entry.kind == "incident"]
    assert incidents == ["as_priced" if priced else "max_params"]


def reads_its_input(config: dict[str, Any]) -> None:
    class Conditional(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) if inputs.sum() > 0 else inputs

    Conditional(3, 3)(torch.ones(2, 3))
    tune.report({"score": 1.0})


def test_a_model_that_can_not_be_counted_is_refused_unless_somebody_prices_it(
    govern: Callable[..., Any], tmp_path: Path
):
    def tuner(name: str) -> tune.Tuner:
        return tune.Tuner(reads_its_input, tune_config=best(), run_config=run_config(tmp_path, name=name))

    (refused,) = govern(tuner("alone")).fit()
    assert (
        "Tensor.item() cannot be called on meta tensors; tell forward_flops, under the ceiling, by cost="
        in (refused.metrics["lease_refused"])
    )
    (priced,) = govern(tuner("priced"), cost=lambda config: {"params": 12, "forward_flops": 18}).fit()
    assert priced.metrics["score"] == 1.0


def reports_no_number(config: dict[str, Any]) -> None:
    for step in range(5):
        tune.report({"score": float("nan") if step == config["at"] else 0.5})


def test_a_report_that_is_no_number_stops_its_trial_and_whatever_else_stops_one_still_does(
    govern: Callable[..., Any], tmp_path: Path
):
    tuner = tune.Tuner(
        reports_no_number,
        param_space={"at": tune.grid_search([1, 9])},
        tune_config=best(),
        run_config=run_config(tmp_path, stop=MaximumIterationStopper(4)),
    )
    results = govern(tuner).fit()
    assert [r.metrics["training_iteration"] for r in results] == [2, 4]
    incidents = [entry.rule for entry in books(tmp_path)[0] if entry.kind == "incident"]
    assert incidents == ["finite_score"]


def hangs(config: dict[str, Any]) -> None:
    Path(config["folder"], "pid").write_text(str(os.getpid()))
    while True:
        time.sleep(0.1)


def test_a_sweep_that_is_frozen_has_no_worker_any_more(govern: Callable[..., Any], tmp_path: Path):
    tuner = tune.Tuner(
        hangs, param_space={"folder": str(tmp_path)}, tune_config=best(), run_config=run_config(tmp_path)
    )
    governed = govern(tuner, {"lease_seconds": 3, "grace_seconds": 1})
    died_after: list[float] = []

    def freeze() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        process = psutil.Process(int((tmp_path / "pid").read_text()))
        ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
        ledger.freeze("run", "a test says so")
        ledger.close()
        frozen = time.monotonic()
        process.wait(timeout=20)
        died_after.append(time.monotonic() - frozen)

    thread = threading.Thread(target=freeze)
    thread.start()
    governed.fit()
    thread.join()
    assert died_after[0] < 4
    assert books(tmp_path)[1]["trials"] == 1


def goes_on(config: dict[str, Any]) -> None:
    checkpoint = tune.get_checkpoint()
    begun = 0
    if checkpoint:
        with checkpoint.as_directory() as folder:
            begun = int(Path(folder, "step").read_text())
    for step in range(begun + 1, 7):
        folder = Path(f"checkpoint-{step}")
        folder.mkdir(exist_ok=True)
        (folder / "step").write_text(str(step))
        tune.report({"score": float(step)}, checkpoint=tune.Checkpoint.from_directory(str(folder)))


class Interrupting(tune.Callback):
    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any):
        if result["score"] == 3 and trial.config["width"] == 2 and "restored" not in trial.config:
            raise RuntimeError("the driver is cut short")


def wait_for_the_last_state(run: Path) -> None:
    """Tune copies it in a thread, which outlives a driver that is cut short in its own process."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(ValueError):
            for path in run.glob("experiment_state-*.json"):
                json.loads(path.read_text())
            return
        time.sleep(0.1)
    raise AssertionError("the state of the run was never whole")


def test_a_run_that_was_cut_short_is_restored_under_the_same_budgets(
    govern: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
    tuner = tune.Tuner(
        tune.with_resources(goes_on, {"cpu": 2}),
        param_space={"width": tune.grid_search([1, 2])},
        tune_config=best(),
        run_config=run_config(tmp_path, callbacks=[Interrupting()], stop={"score": 6}),
    )
    flops = {"cost": cost, "reports": 6}
    with pytest.raises(Exception, match="cut short"):
        govern(tuner, **flops).fit()
    wait_for_the_last_state(tmp_path / "run")
    restored = tune.Tuner.restore(str(tmp_path / "run"), tune.with_resources(goes_on, {"cpu": 2}))
    restored._local_tuner._run_config.callbacks = []
    results = govern(restored, **flops).fit()
    assert [r.metrics["score"] for r in results] == [6.0, 6.0]
    entries, spent = books(tmp_path)
    assert spent["trials"] == 2
    assert [e.key.rpartition("_")[2][-3:] for e in entries if e.kind == "reserve"] == ["000", "001", "1#2"]


def test_the_example_runs_and_tells_what_was_spent():
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "govern_pbt.py")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "spent" in done.stdout.splitlines()[-1]


def takes_memory(config: dict[str, Any]) -> None:
    held = []
    for _ in range(200):
        held.append(b"x" * 10_000_000)
        time.sleep(0.02)
    tune.report({"score": float(len(held))})


def test_a_trial_that_takes_more_memory_than_was_told_is_killed(govern: Callable[..., Any], tmp_path: Path):
    tuner = tune.Tuner(takes_memory, tune_config=best(), run_config=run_config(tmp_path))
    results = govern(tuner, {"bounds": BOUNDS}, cost=lambda config: {"memory_bytes": 10**7}).fit()
    assert results.num_errors == 1
    incidents = [entry.rule for entry in books(tmp_path)[0] if entry.kind == "incident"]
    assert incidents == ["within_memory"]


def reports_on(config: dict[str, Any]) -> None:
    Path(config["folder"], "pid").write_text(str(os.getpid()))
    for _ in range(600):
        time.sleep(0.1)
        tune.report({"score": 0.5})


class RaisingStopper(MaximumIterationStopper):
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        raise ValueError("the stopper's own fault")


class RaisingScheduler(FIFOScheduler):
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        raise ValueError("the scheduler's own fault")


@pytest.mark.parametrize("part", ["stopper", "scheduler"])
def test_a_part_that_raises_ends_the_fit_with_its_words_and_no_worker_goes_on(
    govern: Callable[..., Any], tmp_path: Path, part: str
):
    run = run_config(tmp_path, stop=RaisingStopper(9)) if part == "stopper" else run_config(tmp_path)
    chosen = best(scheduler=RaisingScheduler()) if part == "scheduler" else best()
    tuner = tune.Tuner(reports_on, param_space={"folder": str(tmp_path)}, tune_config=chosen, run_config=run)
    with pytest.raises(Exception, match=f"the {part}'s own fault"):
        govern(tuner, {"lease_seconds": 2, "grace_seconds": 1}).fit()
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)
    assert "close_sweep" in [entry.kind for entry in books(tmp_path)[0]]
