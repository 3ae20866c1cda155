"""Sweeps from Python on a real Ray: resumed, warm-started, with several objectives, mutated meanwhile."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

import rsi_ray
from rsi_ray.records import Verdict
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from safety import Ledger
from search_spaces import MLPSpace
from tests.integration.conftest import end_governor

pytestmark = pytest.mark.ray

LIMITS = {"bounds": {"max_params": 20e3, "max_flops": 1e6, "max_memory": 1e9}, "sweep": {"trials": 20}}
TASK = breast_cancer_task(BreastCancerOptions(holdout_size=64))
TRAINING = rsi_ray.Training(epochs=3, steps_per_epoch=2, batch_size=8, warmup_steps=1)


def sweep_in(storage: Path, **changes: Any) -> rsi_ray.Sweep:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = MLPSpace(heads=TASK.heads, batch_size=TRAINING.batch_size)
    values = {"training": TRAINING, "scheduler": "fifo", "trials": 3, "concurrent": 1, **changes}
    return rsi_ray.Sweep(space, TASK, LIMITS, storage=storage, **values)


@pytest.fixture
def make(tmp_path: Path, fresh_governor: None):
    return partial(sweep_in, tmp_path)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory, shared_ray: None) -> Path:
    """The storage of one run of three trials, which the tests that begin with one copy."""
    storage = tmp_path_factory.mktemp("made_once")
    sweep_in(storage).run()
    end_governor()
    return storage


@pytest.fixture
def first(made_once: Path, tmp_path: Path) -> Path:
    """The folder of an earlier run in this test's storage."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    (about,) = tmp_path.glob("*/run.json")
    # which says where its ledger is
    about.write_text(about.read_text().replace(str(made_once), str(tmp_path)))
    return about.parent


def trained(result: rsi_ray.Result):
    return trained_of(result.table)


def trained_of(table: pd.DataFrame):
    return table[table["verdict"].isin([Verdict.MEASURED, Verdict.STOPPED])]


def table_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "results.parquet")


def spent(result: rsi_ray.Result, resource: str = "trials") -> int:
    (budget,) = (b for b in result.status.budgets if b.scope != "cluster" and b.resource == resource)
    assert budget.held == 0
    return budget.spent


def test_a_sweep_in_python_leaves_a_table_and_any_candidate_replays(make):
    sweep = make()
    environment, level = dict(os.environ), logging.getLogger("ray.tune").level
    result = sweep.run()
    assert (dict(os.environ), logging.getLogger("ray.tune").level) == (environment, level)
    assert len(trained(result)) == 3
    assert (result.ended, result.used_up) == ("", "")
    number = int(trained(result)["number"].iloc[0])
    assert sweep.replay(f"{result.folder.name}/{number}").same


def test_a_run_that_is_resumed_runs_nothing_twice_and_spends_from_the_same_budget(make):
    sweep = make(trials=2)
    first = sweep.run()
    sweep.trials = 5
    again = sweep.run(resume=first.folder.name)
    assert again.folder == first.folder
    configs = [str(row) for row in trained(again).filter(like="config/").to_dict("records")]
    assert len(configs) == len(set(configs)) == 5
    assert list(trained(again)["score"][:2]) == list(trained(first)["score"])
    assert spent(again) == 5


def test_a_run_that_is_complete_has_nothing_left_to_resume(make, first):
    before = len(table_of(first))
    again = make().run(resume=first)
    assert len(again.table) == before
    assert spent(again) == 3


def test_a_run_of_another_space_is_not_resumed(make, first):
    other = make()
    other.space = MLPSpace(heads=TASK.heads, batch_size=TRAINING.batch_size, widths=(3, 5))
    with pytest.raises(rsi_ray.SweepError, match="is no candidate of this sweep's space"):
        other.run(resume=first)


def test_what_is_enqueued_is_trained_first_and_what_is_told_is_not_trained(make):
    sweep = make(trials=2)
    names = trained(make(trials=1).run()).filter(like="config/").dropna(axis=1).iloc[0].to_dict()
    config = {name.removeprefix("config/"): value for name, value in names.items()}
    other = {**config, "activation": "gelu" if config["activation"] != "gelu" else "silu"}
    sweep.enqueue_trial(other)
    sweep.enqueue_trial(config)
    sweep.add_trial(other, 0.25)
    result = sweep.run()
    first = trained(result).iloc[0]
    assert {name: first[name] for name in names} == names
    earlier = result.table[result.table["verdict"] == Verdict.EARLIER]
    assert list(earlier["score"]) == [0.25]
    assert earlier["params"].notna().all()


def test_a_warm_start_tells_what_an_earlier_run_measured(make, first):
    result = make(trials=1, warm_start=first.name).run()
    earlier = result.table[result.table["verdict"] == Verdict.EARLIER]
    assert list(earlier["score"]) == list(trained_of(table_of(first))["score"])
    assert len(trained(result)) == 1


def test_several_objectives_leave_a_front_that_nothing_dominates(make):
    result = make(trials=5, objectives=("score", "params", "latency"), sampler="nsga2").run()
    front = result.front
    assert 1 <= len(front) <= 5
    assert (trained(result)["latency_ms"] > 0).all()
    for _, one in front.iterrows():
        better = trained(result)
        better = better[(better["score"] >= one["score"]) & (better["params"] < one["params"])]
        assert not (better["latency_ms"] <= one["latency_ms"]).any()


def test_a_run_is_not_resumed_with_another_training_or_without_its_ledger(make, first, tmp_path):
    for changes, message in (
        ({"training": replace(TRAINING, epochs=4)}, "its training was"),
        ({"seed": 5}, "its seed was 0, and is 5 now"),
        ({"objectives": ("score", "params")}, "its objectives was"),
    ):
        with pytest.raises(rsi_ray.SweepError, match=message):
            make(**changes).plan(resume=first)
    (tmp_path / "ledger.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(rsi_ray.SweepError, match="its budgets would start anew"):
        make().plan(resume=first)
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("scheduler", ["hyperband", "median", "pbt", "pb2"])
def test_every_scheduler_by_name_ends_with_every_lease_settled(make, scheduler):
    result = make(
        scheduler=scheduler,
        trials=4,
        concurrent=2,
        hyperparameters=rsi_ray.TrainingChoices(learning_rate=(1e-4, 1e-2)),
        sampler="random",
    ).run()
    assert result.ended == ""
    assert len(trained(result)) == 4
    ledger = Ledger(f"sqlite:///{result.folder.parent}/ledger.db")
    assert ledger.open_leases(result.folder.name) == []
    ledger.close()


def test_what_cannot_run_is_told_in_one_line(make):
    for changes, message in (
        ({"sampler": "annealing"}, "annealing"),
        ({"scheduler": "pbt"}, "search at least one"),
        ({"sampler": "cmaes", "objectives": ("score", "params")}, "cmaes takes one objective"),
        ({"cpus": 0}, "cpus: 0, expected a whole number from 1"),
        ({"name": "a/b"}, "expected 1 to 63 letters, digits"),
        ({"scheduler": 3}, "or a function that gives one"),
        ({"objectives": ("params",)}, "expected score as the first one"),
        ({"objectives": ("score", "beauty")}, "'beauty', expected one of score, params"),
    ):
        with pytest.raises(rsi_ray.SweepError, match=message):
            make(**changes).plan()
    with pytest.raises(rsi_ray.SweepError, match="task: missing"):
        rsi_ray.Sweep(make().space, None, LIMITS).plan()
