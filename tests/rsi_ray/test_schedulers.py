"""The schedulers by name: made of options, and mutations stay within the ranges that are searched."""

import random

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.pbt import _explore

from rsi_ray.schedulers import SCHEDULERS, TIME, SchedulerOptions, recall, scheduler_of

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


class Controller:
    """No other trial waits."""

    def get_live_trials(self):
        return []


def reports_until_stopped(scheduler, trial, scores):
    """What a trial reports before a scheduler stops it, as Tune tells it."""
    made = {}
    scheduler.on_trial_add(Controller(), trial)
    for step, score in enumerate(scores, start=1):
        made[step] = score
        result = {TIME: step, "score": score}
        if scheduler.on_trial_result(Controller(), trial, result) == TrialScheduler.STOP:
            break
    scheduler.on_trial_complete(Controller(), trial, result)
    return made


@pytest.mark.parametrize("name", ["asha", "median", "fifo"])
def test_a_scheduler_that_is_shown_earlier_trials_stops_as_if_it_had_seen_them(name):
    rng = random.Random(3)
    curves = [sorted(rng.random() for _ in range(9)) for _ in range(30)]
    trials = [type("Trial", (), {"trial_id": str(index)})() for index in range(30)]

    def run(scheduler, numbers):
        scheduler.set_search_properties("score", "max")
        return [reports_until_stopped(scheduler, trials[index], curves[index]) for index in numbers]

    options = SchedulerOptions(reports=9, grace_period=1)
    whole = run(scheduler_of(name, options), range(30))
    again = scheduler_of(name, options)
    recall(again, whole[:15])
    assert run(again, range(15, 30)) == whole[15:]
    assert name == "fifo" or len({len(made) for made in whole[15:]}) > 1
