"""Runs on disk: what one that was stopped is gone on with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rsi_ray import Sweep
from rsi_ray.disk import RUN_FILE, STUDY_FILE, open_folder
from rsi_ray.runs import told_config
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from search_spaces import MLPSpace
from search_spaces.mlp import MLPSpec
from search_spaces.parameters import parameters_of

TASK = breast_cancer_task(BreastCancerOptions(holdout_size=32))
SPACE = MLPSpace(heads=TASK.heads, batch_size=32, depth=(1, 3), widths=(8, 16, 32), dropouts=(0.0,))


def sweep_in(folder, *, max_params=100_000, widths=()):
    bounds = {"max_params": max_params, "max_flops": 1e9, "max_memory": 1e9}
    sweep = Sweep(SPACE, TASK, {"bounds": bounds}, name="s", storage=folder)
    for width in widths:
        spec = MLPSpec(widths=(width,), activation="relu", norm="none", residual=False)
        sweep.enqueue_trial(parameters_of(SPACE, spec))
    return sweep


def begun(sweep):
    """Its plan, whose process died right after it had begun."""
    plan = sweep.plan_as("s-1", sweep="s")
    with open_folder(plan):
        return plan


def test_what_a_run_was_to_train_first_is_trained_first_when_it_is_gone_on_with(tmp_path):
    plan = begun(sweep_in(tmp_path, widths=(8, 16)))
    assert len(plan.enqueued) == 2
    assert sweep_in(tmp_path).plan_as("s-1", sweep="s").enqueued == plan.enqueued


def test_of_what_was_to_be_trained_first_nothing_over_a_ceiling_of_now_is_trained(tmp_path):
    plan = begun(sweep_in(tmp_path, widths=(8, 32)))
    again = sweep_in(tmp_path, max_params=500).plan_as("s-1", sweep="s")
    assert again.enqueued == plan.enqueued[:1]


def test_a_run_that_is_gone_on_with_keeps_its_seed(tmp_path):
    plan = begun(sweep_in(tmp_path, widths=(8,)))
    with open_folder(replace(plan, resumed=True)) as (study, _):
        study.enqueue_trial(plan.enqueued[0])
        study.ask()
    assert sweep_in(tmp_path).plan_as("s-1", sweep="s").seed == plan.seed


@pytest.mark.parametrize("content", [None, b"", b'{"op_code"'])
def test_a_run_whose_process_died_before_it_had_a_study_is_gone_on_with(tmp_path, content):
    plan = begun(sweep_in(tmp_path, widths=(8,)))
    (plan.folder / STUDY_FILE).unlink()
    if content is not None:
        (plan.folder / STUDY_FILE).write_bytes(content)
    again = sweep_in(tmp_path).plan(resume="s-1")
    assert (again.resumed, again.enqueued) == (True, plan.enqueued)
    with open_folder(again) as (study, interrupted):
        assert (len(study.trials), interrupted) == (0, [])


def test_a_candidate_that_waits_still_is_one_of_the_space(tmp_path):
    plan = begun(sweep_in(tmp_path, widths=(8,)))
    with open_folder(replace(plan, resumed=True)) as (study, _):
        study.enqueue_trial(plan.enqueued[0])
    assert sweep_in(tmp_path).plan_as("s-1", sweep="s").resumed
    assert json.loads((plan.folder / RUN_FILE).read_text())["enqueued"] == list(plan.enqueued)


def test_what_lay_beside_a_file_is_looked_for_here_where_that_folder_is_gone(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    gone = tmp_path / "gone"
    config = {"task": {"paths": [f"{gone}/a.csv", "/else/b.csv"]}, "name": f"{gone}", "trials": 3}
    (tmp_path / "run.json").write_text(json.dumps({"beside": str(gone), "config": config}))
    assert told_config(tmp_path)["task"]["paths"] == [f"{tmp_path}/here/a.csv", "/else/b.csv"]
    assert told_config(tmp_path)["trials"] == 3
    gone.mkdir()
    assert told_config(tmp_path) == config
