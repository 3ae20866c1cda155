"""Regularized evolution: who lives, who is a parent, and what a child inherits."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from rsi_ray.samplers import EvolutionSampler
from rsi_ray.samplers.evolution import changed

DIGITS = CategoricalDistribution(tuple(range(10)))
SPACE = dict.fromkeys("abcd", DIGITS)


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def trial_of(digit, value=None, **more):
    """A trial whose parameters are all the same digit."""
    return create_trial(params=dict.fromkeys("abcd", digit), distributions=SPACE, value=value, **more)


def children(trials, directions=("maximize",), **options):
    """The children of forty asks; none of them joins the population."""
    study = optuna.create_study(directions=directions, sampler=EvolutionSampler(seed=0, **options))
    study.add_trials(trials)
    found = []
    for _ in range(40):
        child = study.ask()
        found.append([child.suggest_categorical(name, DIGITS.choices) for name in "abcd"])
        study.tell(child, state=TrialState.FAIL)
    return found


def parents(children):
    return {max(set(child), key=child.count) for child in children}


def test_a_child_is_its_parent_with_one_parameter_changed():
    found = children([trial_of(3, 1.0)] * 4, population=4, tournament=2)
    assert all(child.count(3) == 3 for child in found)
    assert {name for child in found for name in range(4) if child[name] != 3} == {0, 1, 2, 3}


@pytest.mark.parametrize(("direction", "best"), [("maximize", 5), ("minimize", 1)])
def test_the_best_of_the_tournament_is_the_parent(direction, best):
    trials = [trial_of(digit, float(digit)) for digit in (3, 1, 5, 2)]
    assert parents(children(trials, directions=[direction], population=4, tournament=4)) == {best}


def test_a_tournament_smaller_than_the_population_lets_others_win():
    trials = [trial_of(digit, float(digit)) for digit in (3, 1, 5, 2)]
    assert parents(children(trials, population=4, tournament=1)) == {1, 2, 3, 5}


def test_the_oldest_die_however_good_they_are():
    trials = [trial_of(9, 100.0), *(trial_of(digit, float(digit)) for digit in (3, 1, 2))]
    assert parents(children(trials, population=3, tournament=3)) == {3}


def test_refused_and_stopped_trials_are_no_parents():
    trials = [trial_of(1, 1.0), trial_of(2, 2.0)]
    trials += [trial_of(8, 8.0, constraints={"max_params": 0.1})]
    trials += [trial_of(9, state=TrialState.PRUNED)] * 3
    assert parents(children(trials, population=2, tournament=2)) == {2}


def test_specs_are_random_until_the_population_is_there():
    found = children([trial_of(3, 1.0)] * 3, population=4, tournament=2)
    assert all(child.count(3) < 3 for child in found)


def test_a_parent_of_two_objectives_is_one_that_fewest_dominate():
    values = {1: [1.0, 1.0], 2: [3.0, 2.0], 3: [2.0, 2.0], 4: [0.0, 2.0]}
    trials = [trial_of(digit, values=both) for digit, both in values.items()]
    found = children(trials, directions=("maximize", "minimize"), population=4, tournament=4)
    assert parents(found) == {1, 2}


def test_parameters_that_a_change_brings_up_are_drawn_at_random():
    depth = CategoricalDistribution((1, 2))
    study = optuna.create_study(sampler=EvolutionSampler(population=1, tournament=1, seed=0))
    study.add_trial(create_trial(params={"depth": 1}, distributions={"depth": depth}, value=0.0))
    drawn = set()
    for _ in range(60):
        child = study.ask()
        assert child.suggest_categorical("depth", (1, 2)) == 2
        drawn.add(child.suggest_int("second", 0, 5))
        study.tell(child, state=TrialState.FAIL)
    assert drawn == set(range(6))


@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(0, 100, step=10),
        IntDistribution(1, 1000, log=True),
        FloatDistribution(0.0, 1.0),
        FloatDistribution(0.0, 1.0, step=0.05),
        FloatDistribution(1e-5, 1e-1, log=True),
    ],
)
def test_a_number_is_changed_to_one_near_it_in_its_range_and_on_its_grid(distribution):
    rng = random.Random(0)
    value = distribution.low if distribution.log else (distribution.low + distribution.high) / 2
    found = [changed(value, distribution, rng) for _ in range(300)]
    assert value not in found
    assert all(distribution._contains(distribution.to_internal_repr(one)) for one in found)
    near = distribution.low * 10 if distribution.log else value * 1.5
    assert sum(one <= near for one in found) > 0.6 * len(found)


def test_few_values_are_changed_to_any_other():
    rng = random.Random(0)
    assert {changed(2, IntDistribution(1, 4), rng) for _ in range(60)} == {1, 3, 4}


@pytest.mark.parametrize("tournament", [0, 6])
def test_a_tournament_that_the_population_has_not_got_is_refused(tournament):
    with pytest.raises(ValueError, match=f"expected 1 to the population, 5, found {tournament}"):
        EvolutionSampler(population=5, tournament=tournament)
