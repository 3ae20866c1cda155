"""The schedulers by name: made of options, and mutations stay within the ranges that are searched."""

import random

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.schedulers.pbt import _explore

from rsi_ray.schedulers import SCHEDULERS, SchedulerOptions, scheduler_of

MUTABLE = {
    "training.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    "training.warmup_steps": IntDistribution(0, 10),
    "training.schedule": CategoricalDistribution(["cosine", "linear"]),
}
CONFIG = {
    "width": 5,
    "training.learning_rate": 1e-2,
    "training.warmup_steps": 10,
    "training.schedule": "linear",
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_name_makes_a_scheduler(name):
    scheduler = scheduler_of(name, SchedulerOptions(reports=9, mutable=MUTABLE))
    assert scheduler.set_search_properties("score", "max")


def test_an_unknown_name_is_told_with_those_that_are_known():
    with pytest.raises(ValueError, match="scheduler: 'bohb', expected one of fifo, asha"):
        scheduler_of("bohb", SchedulerOptions(reports=9))


@pytest.mark.parametrize("name", ["pbt", "pb2"])
def test_a_scheduler_that_mutates_needs_something_to_mutate(name):
    with pytest.raises(ValueError, match="search at least one"):
        scheduler_of(name, SchedulerOptions(reports=9))


def test_a_mutation_stays_within_the_range_that_is_searched_and_leaves_the_architecture():
    pbt = scheduler_of("pbt", SchedulerOptions(reports=9, mutable=MUTABLE))
    random.seed(0)
    for _ in range(200):
        changed, _ = _explore(CONFIG, pbt._hyperparam_mutations, 0.25, (1.2, 0.8), pbt._custom_explore_fn)
        assert 1e-4 <= changed["training.learning_rate"] <= 1e-2
        assert 0 <= changed["training.warmup_steps"] <= 10
        assert changed["training.schedule"] in ("cosine", "linear")
        assert changed["width"] == 5
