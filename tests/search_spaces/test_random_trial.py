import random

from search_spaces import RandomTrial


def trial(seed=0):
    return RandomTrial(random.Random(seed))


def test_a_name_asked_again_gets_its_first_answer():
    one = trial()
    first = one.suggest_int("depth", 1, 10**9)
    assert one.suggest_int("depth", 1, 10**9) == first
    assert one.params == {"depth": first}


def test_the_same_seed_draws_the_same():
    assert trial(7).suggest_float("rate", 0.0, 1.0) == trial(7).suggest_float("rate", 0.0, 1.0)


def test_integers_reach_both_ends_and_stay_on_the_grid():
    drawn = {trial(seed).suggest_int("depth", 2, 8, step=3) for seed in range(100)}
    assert drawn == {2, 5, 8}


def test_log_integers_reach_both_ends_and_prefer_the_small():
    drawn = [trial(seed).suggest_int("width", 1, 64, log=True) for seed in range(1000)]
    assert (min(drawn), max(drawn)) == (1, 64)
    assert sum(value <= 8 for value in drawn) > 500


def test_floats_stay_within_their_bounds_and_on_the_grid():
    drawn = {trial(seed).suggest_float("rate", 0.1, 0.3, step=0.1) for seed in range(100)}
    assert sorted(round(value, 9) for value in drawn) == [0.1, 0.2, 0.3]
    assert all(1e-4 <= trial(seed).suggest_float("rate", 1e-4, 1e-1, log=True) <= 1e-1 for seed in range(100))


def test_every_choice_is_drawn():
    assert {trial(seed).suggest_categorical("norm", ("a", None, 3)) for seed in range(50)} == {"a", None, 3}
