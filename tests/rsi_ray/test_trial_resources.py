"""What trials ask of a cluster, and how many fit, without a Ray that runs."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler

from rsi_ray.errors import SweepError
from rsi_ray.placement import HEAD_BYTES, Placement, Resources
from rsi_ray.plan import Plan
from rsi_ray.samplers import SAMPLERS
from rsi_ray.trial_resources import TrialResources, fitting, placed, placement_of
from safety import limits_from_dict
from tests.integration.conftest import BOUNDS
from tests.integration.jobs import BehavingJob, WidthSpace
from tests.rsi_ray.test_training_job import CONFIG, Loader
from tests.rsi_ray.test_training_job import job as training_job

GPU = 8 * 10**9
TOTAL = {"CPU": 8.0, "GPU": 2.0}
ONE, SHARES = Resources(), Resources(gpus="auto")


def plan_of(job: Any, resources: Resources = ONE) -> Plan:
    values: dict[str, Any] = {
        "name": "tested",
        "folder": Path("run"),
        "ledger_url": "sqlite://",
        "limits": limits_from_dict({"bounds": BOUNDS | {"max_params": 10**9, "max_performance": {}}}),
        "space": job,
        "job": job,
        "sampler": SAMPLERS["random"](0),
        "reports": 3,
        "trials": 2,
        "scheduler": FIFOScheduler,
        "resources": resources,
    }
    return Plan(**values)


def test_each_configuration_asks_for_the_share_of_its_own_claim():
    sizes = {"small": 10**8, "large": 3 * 10**9}
    resources = Resources(cpus=2, gpus="auto", gpu_memory=GPU)
    asked = TrialResources(lambda config: resources.placement(sizes[config["size"]]))
    assert asked({"size": "small"}).required_resources == {"CPU": 2, "GPU": 3 / 16}
    assert asked({"size": "large"}).required_resources == {"CPU": 2, "GPU": 1 / 2}
    assert asked({"size": "large"}) == asked({"size": "large"})


def test_a_sweep_without_gpus_asks_for_none():
    plan = plan_of(BehavingJob(), Resources(cpus=3))
    asked = TrialResources(partial(placement_of, plan))
    assert asked({"width": 3}).required_resources == {"CPU": 3}


def test_a_trial_of_several_workers_leaves_cores_and_gpus_to_them():
    resources = Resources(cpus=3, gpus=1, workers=2)
    plan = plan_of(training_job(resources=resources), resources)
    assert placement_of(plan, CONFIG) == Placement(cpus=3, gpus=1, workers=2)
    asked = TrialResources(partial(placement_of, plan))
    assert asked(CONFIG).required_resources == {"memory": HEAD_BYTES}


def test_what_is_pickled_is_the_same_object_again_so_that_no_task_is_loaded_anew():
    asked = TrialResources(partial(placement_of, plan_of(BehavingJob())))
    sent = pickle.dumps(asked)
    assert pickle.loads(sent) is asked  # noqa: S301
    del asked
    assert pickle.loads(sent) is None  # noqa: S301


def test_the_job_of_a_sweep_that_asks_for_shares_prices_them_with_the_memory_of_the_smallest_gpu():
    job = training_job(resources=SHARES)
    plan = placed(plan_of(job, SHARES), lambda: GPU)
    assert plan.resources.gpu_memory == GPU
    assert job.price(CONFIG).gpu_ms == 60_000
    assert plan.job.price(CONFIG).gpu_ms == 60_000 // 8
    assert plan.job.placement(CONFIG).gpus == 1 / 8


def test_a_task_that_is_loaded_is_not_loaded_again_for_it():
    loader = Loader()
    job = replace(training_job(resources=SHARES), load_task=loader)
    job.price(CONFIG)
    assert job.on_gpus_of(GPU).price(CONFIG).gpu_ms < 60_000
    assert loader.loads == 1


def test_what_the_plan_says_of_gpus_is_not_asked_of_the_cluster():
    def nobody() -> int:
        raise AssertionError

    for resources in (Resources(gpus="auto", gpu_memory=GPU), Resources(gpus=0.5)):
        assert placed(plan_of(BehavingJob(), resources), nobody).resources == resources


def test_where_nobody_knows_how_large_a_gpu_is_the_line_says_what_to_set():
    with pytest.raises(SweepError, match=r"resources: auto.*set resources\.gpu_memory"):
        placed(plan_of(BehavingJob(), SHARES), lambda: 0)


def test_a_space_whose_candidates_fit_on_no_gpu_is_refused_in_one_line():
    plan = plan_of(training_job(resources=SHARES), SHARES)
    with pytest.raises(SweepError, match=r"nearest: it needs .* of a GPU .*smallest one has 1,000$"):
        placed(plan, lambda: 1000)


@pytest.mark.parametrize(
    ("resources", "fit"),
    [
        (Resources(), 8),
        (Resources(cpus=3), 2),
        (Resources(gpus=0.5), 4),
        (Resources(gpus=0.5, cpus=4), 2),
        (SHARES, None),
        (Resources(workers=3), 2),
        (Resources(workers=2, gpus=0.5), 2),
        (Resources(workers="auto", gpus=1), 2),
    ],
)
def test_as_many_trials_run_at_a_time_as_fit_or_as_ray_finds_room_for(resources: Resources, fit: int | None):
    assert fitting(plan_of(BehavingJob(space=WidthSpace()), resources), TOTAL) == fit


@pytest.mark.parametrize(
    "resources",
    [
        Resources(cpus=9),
        Resources(gpus=3),
        Resources(gpus="auto", cpus=9),
        Resources(workers=9),
        Resources(workers=3, gpus=1),
    ],
)
def test_where_not_one_trial_fits_the_line_says_what_it_asks_for(resources: Resources):
    with pytest.raises(SweepError, match=r"more than this cluster has; where nodes are .* set `concurrent`"):
        fitting(plan_of(BehavingJob(), resources), TOTAL)


def test_shares_of_a_cluster_without_a_gpu_fit_nowhere():
    with pytest.raises(SweepError, match="1 CPUs and 1 GPUs"):
        fitting(plan_of(BehavingJob(), SHARES), {"CPU": 8.0})


def test_where_no_cpu_is_known_of_one_trial_runs_at_a_time_and_a_line_says_why(
    caplog: pytest.LogCaptureFixture,
):
    assert fitting(plan_of(BehavingJob()), {"CPU": 1.0}) == 1
    assert not caplog.messages
    assert fitting(plan_of(BehavingJob()), {"memory": 10.0}) == 1
    (said,) = caplog.messages
    assert said.endswith(
        "one trial runs at a time; where nodes are started when they are asked for, set `concurrent`"
    )
