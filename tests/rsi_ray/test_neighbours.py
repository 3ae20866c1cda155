"""Configurations around a champion's: one parameter changed, the rest kept where it still fits."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from rsi_ray.neighbours import FEW, KeepingTrial, neighbours
from search_spaces.given_trial import spec_from
from tests.rsi_ray.champions import SPACE


@dataclass(frozen=True)
class Small:
    """Two choices of four values and one of another; the second one's choices follow from the first."""

    def suggest(self, trial):
        size = trial.suggest_categorical("size", (2, 4))
        offered = (1, 2) if size == 2 else (2, 4)
        heads = trial.suggest_categorical(f"heads[{','.join(map(str, offered))}]", offered)
        depth = trial.suggest_int("depth", 1, 3)
        return size, heads, depth


class Wide:
    """A whole number of many values, and a real one."""

    def suggest(self, trial):
        return trial.suggest_int("width", 1, 1000), trial.suggest_float("rate", 0.0, 1.0)


def rng():
    return random.Random(3)


def test_each_parameter_is_changed_to_each_other_value_once():
    config = {"size": 2, "heads[1,2]": 2, "depth": 2}
    found = neighbours(Small(), config, rng())
    assert found == [
        {"size": 4, "heads[2,4]": 2, "depth": 2},
        {"size": 2, "heads[1,2]": 1, "depth": 2},
        {"size": 2, "heads[1,2]": 2, "depth": 1},
        {"size": 2, "heads[1,2]": 2, "depth": 3},
    ]


def test_what_is_offered_no_longer_is_drawn_among_what_is():
    config = {"size": 2, "heads[1,2]": 1, "depth": 1}
    drawn = {neighbours(Small(), config, random.Random(seed))[0]["heads[2,4]"] for seed in range(20)}
    assert drawn == {2, 4}


def test_a_parameter_with_many_values_is_changed_a_few_times():
    config = {"width": 500, "rate": 0.5}
    found = neighbours(Wide(), config, rng())
    assert 2 < len(found) <= 2 * FEW
    assert config not in found
    assert all((one["width"] == 500) != (one["rate"] == 0.5) for one in found)


def test_the_same_generator_gives_the_same_neighbours():
    config = {"width": 500, "rate": 0.5}
    assert neighbours(Wide(), config, rng()) == neighbours(Wide(), config, rng())


def test_every_neighbour_of_a_conditional_space_is_a_candidate_of_it():
    trial = KeepingTrial({}, rng())
    SPACE.suggest(trial)
    found = neighbours(SPACE, trial.params, rng())
    assert len(found) > 5
    assert [spec_from(SPACE, one)[1] for one in found] == found


@pytest.mark.parametrize(("given", "offered"), [(True, (1, 2)), (1, (True, False)), (9, (1, 2))])
def test_a_choice_that_only_looks_like_the_given_one_is_not_kept(given, offered):
    answers = {KeepingTrial({"a": given}, random.Random(seed)).suggest_categorical("a", offered)
               for seed in range(20)}  # fmt: skip
    assert answers == set(offered)


def test_a_number_off_the_grid_is_not_kept():
    kept = [KeepingTrial({"a": 3}, random.Random(seed)).suggest_int("a", 2, 6, step=2) for seed in range(20)]
    assert set(kept) == {2, 4, 6}
