"""A sweep under limits that the ledger holds tighter than its own."""

import logging
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from ray.tune.schedulers import FIFOScheduler

from rsi_ray.plan import Plan, SweepError
from rsi_ray.sweep import bound
from safety import Governor, Ledger, limits_from_dict
from tests.integration.jobs import BehavingJob


def given(max_params, **more):
    return limits_from_dict(
        {"bounds": {"max_params": max_params, "max_flops": 1e9, "max_memory": 1e9}, **more}
    )


@pytest.fixture
def governor(tmp_path: Path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.open_sweep("tested", given(500, max_generations=3))
    yield Governor(ledger)
    ledger.close()


def plan(limits) -> Plan:
    job = BehavingJob()
    return Plan(
        name="tested",
        folder=Path("nowhere"),
        ledger_url="",
        limits=limits,
        space=job.space,
        job=job,
        sampler=optuna.samplers.RandomSampler(),
        reports=3,
        trials=1,
        scheduler=FIFOScheduler,
    )


def test_a_run_that_goes_on_with_looser_limits_is_told_and_bound_by_the_ledgers(governor, caplog):
    with caplog.at_level(logging.WARNING):
        found = bound(plan(given(1000, max_generations=4)), governor)
    assert (found.limits.bounds.max_params, found.limits.max_generations) == (500, 3)
    assert caplog.messages == [
        "sweep tested: the ledger's limits are tighter and hold: max_generations, bounds.max_params"
    ]


def test_a_run_that_goes_on_with_tighter_limits_binds_them_silently(governor, caplog):
    asked = plan(given(400, max_generations=3))
    assert bound(asked, governor) is asked
    assert caplog.messages == []


def test_a_space_that_is_over_the_limits_in_force_is_refused_and_its_sweep_closed(governor):
    governor._ledger.tighten(given(1, max_generations=3), "ann")
    wide = plan(given(1000))
    object.__setattr__(wide, "job", BehavingJob(lie=-1))
    with pytest.raises(SweepError, match="space: none of"):
        bound(wide, governor)
    assert governor.status("tested").state == "closed"


def test_a_sweep_is_opened_in_the_lineage_that_it_names(governor):
    bound(replace(plan(given(400)), name="new", lineage="family"), governor)
    assert governor._ledger.sweep("new").lineage == "family"
