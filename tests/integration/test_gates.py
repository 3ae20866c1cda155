"""Gate 2 on a real Tune: trials that reach it by a grid, not by our searcher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from ray import tune
from ray.tune.schedulers import (
    FIFOScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from rsi_ray.worker import Candidate
from safety import Ledger, limits_from_dict
from safety.actor import GovernorClient, connect
from safety.tune import Governance, GovernedScheduler, GovernedStopper
from tests.integration.conftest import BOUNDS, ledger_url
from tests.integration.jobs import REPORTS, BehavingJob

pytestmark = pytest.mark.ray


def candidates(governor: GovernorClient, folder: Path) -> type[tune.Trainable]:
    places = {"weights": folder / "weights", "states": folder / "states"}
    trainable = tune.with_parameters(Candidate, job=BehavingJob(), authority=governor, sweep="grid", **places)
    return tune.with_resources(trainable, {"cpu": 1})


def grid(
    governor: GovernorClient, folder: Path, widths: list[int], scheduler: TrialScheduler | None = None
) -> tune.ResultGrid:
    governance = Governance(authority=governor, sweep="grid", price=BehavingJob().price)
    tuner = tune.Tuner(
        candidates(governor, folder),
        param_space={"width": tune.grid_search(widths)},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            scheduler=GovernedScheduler(scheduler or FIFOScheduler(), governance),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="grid",
            storage_path=str(folder),
            stop=GovernedStopper(governance, "score"),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    return tuner.fit()


@pytest.fixture
def governor(fresh_governor: None, tmp_path: Path) -> GovernorClient:
    client = connect(ledger_url(tmp_path))
    client.open_sweep("grid", limits_from_dict({"bounds": BOUNDS}))
    return client


def test_a_grid_value_over_a_ceiling_never_starts_and_the_others_do(governor: GovernorClient, tmp_path: Path):
    results = grid(governor, tmp_path, [3, 40, 5])
    scores = sorted(result.metrics["score"] for result in results if "score" in (result.metrics or {}))
    assert scores == [0.03, 0.05]
    spent = {budget.resource: budget.spent for budget in governor.status("grid").budgets}
    assert spent["trials"] == 2


def test_a_worker_without_a_lease_computes_nothing(governor: GovernorClient, tmp_path: Path):
    tuner = tune.Tuner(
        candidates(governor, tmp_path),
        param_space={"width": 3},
        run_config=tune.RunConfig(
            name="ungoverned",
            storage_path=str(tmp_path),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    (result,) = tuner.fit()
    assert "nothing was reserved for this candidate" in result.metrics["lease_refused"]
    assert "score" not in result.metrics


def test_a_governor_of_another_ledger_is_not_taken_for_ours(governor: GovernorClient, tmp_path: Path):
    with pytest.raises(Exception, match="this cluster's governor keeps the ledger"):
        connect(f"sqlite:///{tmp_path}/another.db")


def halving() -> TrialScheduler:
    return HyperBandScheduler(time_attr="training_iteration", max_t=REPORTS, reduction_factor=2)


def mutating() -> TrialScheduler:
    return PopulationBasedTraining(
        time_attr="training_iteration", perturbation_interval=1, hyperparam_mutations={"width": [40, 41]}
    )


@pytest.mark.parametrize("scheduler", [halving, mutating])
def test_candidates_that_are_paused_or_mutated_are_paid_for_report_by_report(
    governor: GovernorClient, tmp_path: Path, scheduler: Callable[[], TrialScheduler]
):
    widths = [3, 5, 4, 6, 7] if scheduler is halving else [3, 5, 4]
    results = grid(governor, tmp_path, widths, scheduler())
    ends = [result.metrics["training_iteration"] for result in results]
    assert max(ends) == REPORTS
    assert all(result.metrics["score"] < 0.4 for result in results)  # 40 is over the ceiling
    spent = {budget.resource: budget.spent for budget in governor.status("grid").budgets}
    assert spent["trials"] == len(widths)
    assert spent["train_gflop"] >= sum(ends)
    ledger = Ledger(ledger_url(tmp_path))
    kinds = Counter(entry.kind for _, entry, _ in ledger.audit())
    assert ledger.open_leases("grid") == []
    ledger.close()
    assert kinds["reserve"] == kinds["settle"]
    if scheduler is halving:
        assert kinds["reserve"] > len(widths)
        assert spent["train_gflop"] == sum(ends)
    else:
        assert kinds["deny"] > 0
