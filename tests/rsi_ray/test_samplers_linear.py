"""The linear model: how parameters become levels, and what it proposes."""

from __future__ import annotations

import random

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from rsi_ray.samplers.levels import PARTS, levels_of, number_of_levels, on_grid, value_at
from rsi_ray.samplers.linear import STARTUP, Levels, LinearSampler, normal_scores

ABC = CategoricalDistribution(("a", "b", "c"))


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize(
    ("distribution", "count"),
    [
        (ABC, 3),
        (CategoricalDistribution(tuple(range(20))), 20),
        (IntDistribution(2, 8, step=2), 4),
        (IntDistribution(1, 100), PARTS),
        (IntDistribution(1, 4096, log=True), PARTS),
        (FloatDistribution(0.0, 1.0, step=0.05), PARTS),
        (FloatDistribution(1e-5, 1e-1, log=True), PARTS),
    ],
)
def test_the_value_of_a_level_is_of_that_level(distribution, count):
    assert number_of_levels(distribution) == count
    rng = random.Random(0)
    for level in range(count):
        value = value_at(distribution, level, rng)
        assert distribution._contains(distribution.to_internal_repr(value))
        # the nearest value on a coarse grid may lie beside the border
        assert abs(levels_of(distribution)(value) - level) <= (distribution != ABC)
    assert levels_of(ABC)(value_at(ABC, 2, rng)) == 2


def test_the_ends_of_a_range_are_its_first_and_last_levels():
    rate = FloatDistribution(1e-4, 1.0, log=True)
    assert [levels_of(rate)(value) for value in (1e-4, 0.011, 1.0)] == [0, PARTS // 2, PARTS - 1]


def test_a_value_that_the_parameter_has_not_got_has_no_level():
    assert levels_of(ABC)("d") is None
    assert levels_of(FloatDistribution(0.0, 1.0))(-0.5) is None


def test_a_number_is_put_on_the_nearest_place_of_its_grid():
    assert on_grid(7.4, IntDistribution(0, 10, step=5)) == 5
    assert on_grid(99.0, IntDistribution(0, 10, step=5)) == 10
    assert on_grid(0.26, FloatDistribution(0.0, 1.0)) == 0.26


def test_rows_are_one_hot_with_a_constant_and_nothing_for_what_was_not_asked():
    both = create_trial(params={"x": "b", "y": "a"}, distributions={"x": ABC, "y": ABC}, value=0.0)
    one = create_trial(params={"x": "c"}, distributions={"x": ABC}, value=0.0)
    levels = Levels.of([both, one])
    assert levels.rows([both, one]).tolist() == [[0, 1, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0, 1]]


def test_the_best_levels_are_those_under_the_ceiling_at_the_least_loss():
    trial = create_trial(params={"x": "a", "y": "a"}, distributions={"x": ABC, "y": ABC}, value=0.0)
    levels = Levels.of([trial])
    weights = np.array([0.0, 1.0, 3.0, 0.0, 1.0, 2.0, 0.0])
    free, bound = np.zeros(7), np.array([0.0, 1.0, 2.0, 0.0, 1.0, 2.0, -2.5])
    assert levels.best(weights, free) == {"x": 2, "y": 2}
    assert levels.best(weights, bound) == {"x": 2, "y": 0}


def test_scores_are_ranks_of_whatever_size():
    trials = [create_trial(value=value) for value in (-1e9, 5.0, 4.9)]
    for number, trial in enumerate(trials):
        trial.number = number
    scores = normal_scores(trials, [StudyDirection.MAXIMIZE])
    assert scores.argsort().tolist() == [0, 2, 1]
    assert scores == pytest.approx([-0.9674, 0.9674, 0.0], abs=1e-4)


def found(score, *, ceiling=None, count=60):
    study = optuna.create_study(direction="maximize", sampler=LinearSampler(seed=0))
    for _ in range(count):
        trial = study.ask()
        x = [trial.suggest_int(f"x{index}", 0, 3) for index in range(6)]
        if ceiling is not None and sum(x) > ceiling:
            trial.set_constraint("max_params", sum(x) / ceiling - 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, score(x))
    return study


def test_an_additive_score_is_solved_soon():
    assert found(sum, count=40).best_value == 18


def test_it_keeps_under_a_ceiling_that_it_was_only_told_of():
    study = found(sum, ceiling=9)
    late = study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])[30:]
    assert study.best_value == 9
    assert sum(trial.state == TrialState.COMPLETE for trial in late) > len(late) / 2


def test_it_draws_at_random_until_it_has_something_to_fit():
    study = found(lambda x: 0.0, count=STARTUP)
    same = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for trial in study.trials:
        drawn = same.ask()
        assert trial.params == {f"x{index}": drawn.suggest_int(f"x{index}", 0, 3) for index in range(6)}
