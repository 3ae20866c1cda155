"""Every scheduler of Tune, governed: what it does alone is what it does within limits."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.schedulers.pb2 import PB2

import safety
from safety import Ledger, audit
from tests.integration.trainables import REPORTS, Climber, Failing

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
TIME = "training_iteration"
BOUNDS = {"max_params": 100, "max_flops": 10**9, "max_memory": 10**9}
GFLOP = 10**9


def cost(config: dict[str, Any]) -> dict[str, Any]:
    return {"params": config.get("width", 1), "train_flops": REPORTS * GFLOP}


def tuner(
    scheduler: TrialScheduler, folder: Path, space: dict[str, Any], *, samples: int = 1, **changes: Any
) -> tune.Tuner:
    folder.mkdir(exist_ok=True)
    run = {"failure": tune.FailureConfig(), "reuse": True, "trainable": Climber, **changes}
    return tune.Tuner(
        tune.with_resources(run["trainable"], run.get("resources", {"cpu": 1})),
        param_space={"folder": str(folder), **space},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            scheduler=scheduler,
            num_samples=samples,
            max_concurrent_trials=run.get("concurrent"),
            reuse_actors=run["reuse"],
        ),
        run_config=tune.RunConfig(
            name="run", storage_path=str(folder), verbose=0, failure_config=run["failure"]
        ),
    )


def governed(given: tune.Tuner, folder: Path, limits: dict[str, Any] | None = None, **more: Any) -> Any:
    whole = {"bounds": BOUNDS, "sweep": {"train_flops": 10_000 * GFLOP, "trials": 100}, **(limits or {})}
    options = {"trial_seconds": 60, "reports": REPORTS, "ledger": f"sqlite:///{folder}/ledger.db", **more}
    return safety.govern(given, whole, options.pop("cost", cost), **options)


def ends(results: tune.ResultGrid) -> Counter[tuple[float, int]]:
    """How far each slope got."""
    return Counter((r.config["slope"], r.metrics[TIME]) for r in results if r.metrics)


def steps(folder: Path) -> list[list[str]]:
    return [line.split() for line in (folder / "steps.txt").read_text().splitlines()]


class Books:
    """What the ledger says in the end; closed sweeps leave nothing open."""

    def __init__(self, folder: Path) -> None:
        ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        rows = ledger.audit()
        assert audit.verify(rows) is None
        assert ledger.open_leases("run") == []
        self.kinds = Counter(entry.kind for _, entry, _ in rows)
        self.entries = [entry for _, entry, _ in rows]
        budgets = [b for b in ledger.budgets("run") if b.scope == "sweep:run"]
        assert all(b.held == 0 and b.overrun == 0 for b in budgets)
        self.spent = {b.resource: b.spent for b in budgets}
        ledger.close()


SLOPES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
DETERMINISTIC = {
    "fifo": FIFOScheduler,
    "asha": lambda: ASHAScheduler(time_attr=TIME, max_t=REPORTS, grace_period=1, reduction_factor=3),
    "hyperband": lambda: HyperBandScheduler(time_attr=TIME, max_t=REPORTS, reduction_factor=3),
    "median": lambda: MedianStoppingRule(time_attr=TIME, grace_period=2, min_samples_required=2),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_scheduler_stops_the_same_trials_as_ungoverned_and_every_step_is_paid_for_once(
    fresh_governor: None, tmp_path: Path, name: str
):
    space = {"slope": tune.grid_search(SLOPES)}
    alone = tuner(DETERMINISTIC[name](), tmp_path / "alone", space, resources={"cpu": 2}).fit()
    within = governed(
        tuner(DETERMINISTIC[name](), tmp_path / "governed", space, resources={"cpu": 2}), tmp_path
    ).fit()
    assert ends(within) == ends(alone)
    assert len(steps(tmp_path / "governed")) == len(steps(tmp_path / "alone"))
    books = Books(tmp_path)
    assert books.spent["train_gflop"] == len(steps(tmp_path / "governed"))
    assert books.spent["trials"] == len(SLOPES)
    assert books.kinds["reserve"] == books.kinds["settle"] >= len(SLOPES)
    assert (books.kinds["reserve"] > len(SLOPES)) == (name in ("hyperband", "median"))


def pbt(**changes: Any) -> PopulationBasedTraining:
    values = {"time_attr": TIME, "perturbation_interval": 2, "hyperparam_mutations": {"slope": [0.1, 0.5]}}
    return PopulationBasedTraining(**{**values, **changes})


@pytest.mark.parametrize("synch", [False, True])
def test_what_pbt_mutates_runs_under_a_lease_of_its_own(fresh_governor: None, tmp_path: Path, synch: bool):
    random.seed(0)
    space = {"slope": tune.grid_search([0.1, 0.2, 0.5])}
    given = tuner(pbt(synch=synch), tmp_path / "pbt", space)
    results = governed(given, tmp_path).fit()
    assert [r.metrics[TIME] for r in results] == [REPORTS] * 3
    books = Books(tmp_path)
    assert books.spent["train_gflop"] == len(steps(tmp_path / "pbt")) >= 3 * REPORTS
    assert books.spent["trials"] == 3
    assert books.kinds["reserve"] == books.kinds["settle"] > 3


def test_pbt_never_starts_a_mutation_over_a_ceiling(fresh_governor: None, tmp_path: Path):
    random.seed(0)
    space = {"slope": tune.grid_search([0.1, 0.2, 0.5]), "width": 10}

    def widen(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "width": 1000}

    given = tuner(pbt(custom_explore_fn=widen), tmp_path / "pbt", space)
    results = governed(given, tmp_path).fit()
    widths = {line[1] for line in steps(tmp_path / "pbt")}
    assert widths == {"10"}
    books = Books(tmp_path)
    refused = [entry for entry in books.entries if entry.kind == "deny"]
    assert {entry.rule for entry in refused} == {"max_params"}
    assert max(r.metrics[TIME] for r in results) == REPORTS  # the others went on
    assert books.spent["train_gflop"] == len(steps(tmp_path / "pbt"))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pb2_runs_within_its_bounds_and_limits(fresh_governor: None, tmp_path: Path):
    random.seed(0)
    np.random.seed(0)
    scheduler = PB2(
        time_attr=TIME,
        perturbation_interval=3,
        hyperparam_bounds={"slope": [0.1, 0.5]},
        quantile_fraction=0.5,
    )
    given = tuner(scheduler, tmp_path / "pb2", {"slope": tune.uniform(0.1, 0.5)}, samples=3)
    results = governed(given, tmp_path).fit()
    assert [r.metrics[TIME] for r in results] == [REPORTS] * 3
    books = Books(tmp_path)
    assert books.spent["train_gflop"] == len(steps(tmp_path / "pb2"))
    assert books.kinds["reserve"] == books.kinds["settle"] > 3


def test_a_trial_that_failed_is_tried_again_under_another_lease(fresh_governor: None, tmp_path: Path):
    failure = tune.FailureConfig(max_failures=1)
    space = {"slope": tune.grid_search([0.1, 0.2])}
    given = tuner(FIFOScheduler(), tmp_path / "failing", space, trainable=Failing, failure=failure)
    results = governed(given, tmp_path).fit()
    assert [r.metrics[TIME] for r in results] == [REPORTS] * 2
    books = Books(tmp_path)
    assert books.kinds["reserve"] == books.kinds["settle"] == 4
    # what a step that failed computed is not known: it is charged whole
    assert books.spent["train_gflop"] == len(steps(tmp_path / "failing")) + 2
    assert books.spent["trials"] == 2


def test_a_trial_whose_worker_died_waits_until_its_lease_is_forfeited(fresh_governor: None, tmp_path: Path):
    failure = tune.FailureConfig(max_failures=1)
    space = {"slope": 0.1, "dies": True}
    given = tuner(FIFOScheduler(), tmp_path / "dying", space, trainable=Failing, failure=failure)
    limits = {"lease_seconds": 2, "grace_seconds": 1}
    (result,) = governed(given, tmp_path, limits).fit()
    assert result.metrics[TIME] == REPORTS
    books = Books(tmp_path)
    at = {entry.kind: entry.at_ms for entry in books.entries if entry.kind in ("forfeit", "activate")}
    fail = next(entry.at_ms for entry in books.entries if entry.kind == "fail")
    assert at["activate"] > at["forfeit"] > fail
    # the report that was heard and the one under way were computed twice: the rest of the lost hold pays
    assert books.spent["train_gflop"] == 2 + REPORTS


def test_trials_that_a_budget_has_no_room_for_any_more_end_and_the_sweep_with_them(
    fresh_governor: None, tmp_path: Path
):
    scheduler = HyperBandScheduler(time_attr=TIME, max_t=REPORTS, reduction_factor=3)
    given = tuner(scheduler, tmp_path / "run", {"slope": tune.grid_search(SLOPES)}, resources={"cpu": 2})
    limits = {"sweep": {"train_flops": 30 * GFLOP}}
    results = governed(given, tmp_path, limits).fit()
    books = Books(tmp_path)
    assert len(results) == len(SLOPES)
    assert books.spent["train_gflop"] == len(steps(tmp_path / "run")) <= 30
    assert {entry.rule for entry in books.entries if entry.kind == "deny"} == {"budget.train_gflop"}


def test_trials_wait_for_room_and_all_of_them_run(fresh_governor: None, tmp_path: Path):
    space = {"slope": tune.grid_search(SLOPES), "width": 60}
    limits = {"sweep": {"concurrent_params": 100}}
    results = governed(tuner(FIFOScheduler(), tmp_path / "run", space), tmp_path, limits).fit()
    assert [r.metrics[TIME] for r in results] == [REPORTS] * len(SLOPES)
    running, most = 0, 0
    for entry in Books(tmp_path).entries:
        running += {"activate": 1, "settle": -1}.get(entry.kind, 0)
        most = max(most, running)
    assert most == 1


def test_more_gpus_than_the_budget_has_room_for_are_not_used(tmp_path: Path):
    program = [sys.executable, "-m", "tests.integration.resource_change", str(tmp_path), "199", "300"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=250, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"199": 3, "300": REPORTS}

    def claims(gpu_seconds: str) -> list[int]:
        entries = Books(tmp_path / gpu_seconds).entries
        return [json.loads(entry.detail)["claim"]["gpu_ms"] for entry in entries if entry.kind == "reserve"]

    assert claims("199") == [100_000]
    assert claims("300") == [100_000, 200_000]
