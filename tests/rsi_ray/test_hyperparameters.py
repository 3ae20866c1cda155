"""Searched hyperparameters: asked by name, only where there is a choice, and priced with their batch size."""

import math
import random
from dataclasses import dataclass, replace

import optuna
import pytest

from rsi_ray.hyperparameters import TrainingChoices, space_for
from rsi_ray.training import Training
from search_spaces import Head, RandomTrial, TransformerSpace
from search_spaces.given_trial import GivenTrial

ALL = TrainingChoices(
    learning_rate=(1e-4, 1e-2),
    weight_decay=(1e-3, 0.1),
    schedule=("cosine", "linear"),
    batch_size=(8, 64),
    warmup_steps=(0, 50),
)
BASE = Training(epochs=2, steps_per_epoch=5, max_grad_norm=0.5)
GIVEN = {
    "training.learning_rate": 2e-3,
    "training.weight_decay": 0.01,
    "training.schedule": "linear",
    "training.batch_size": 64,
    "training.warmup_steps": 7,
}


def space(batch_size=16):
    return TransformerSpace(
        heads=(Head(name="echo", classes=16, length=6, dense=True),), batch_size=batch_size, vocab=16
    )


def test_every_searched_hyperparameter_is_taken_from_the_trial_and_all_others_from_the_base():
    chosen = ALL.suggest(GivenTrial(GIVEN), BASE)
    assert chosen == replace(
        BASE, learning_rate=2e-3, weight_decay=0.01, schedule="linear", batch_size=64, warmup_steps=7
    )


def test_names_are_those_of_the_training_with_a_prefix():
    trial = RandomTrial(random.Random(0))
    ALL.suggest(trial, BASE)
    assert set(trial.params) == set(GIVEN)


def test_nothing_is_asked_where_nothing_is_searched():
    trial = GivenTrial({})
    assert TrainingChoices().suggest(trial, BASE) == BASE


def test_a_single_choice_is_taken_without_asking():
    single = TrainingChoices(
        learning_rate=(0.1, 0.1), schedule=("constant",), batch_size=(4,), warmup_steps=(3, 3)
    )
    chosen = single.suggest(GivenTrial({}), BASE)
    assert chosen == replace(BASE, learning_rate=0.1, schedule="constant", batch_size=4, warmup_steps=3)


def test_learning_rate_and_weight_decay_are_searched_on_a_log_scale():
    trial = optuna.create_study().ask()
    ALL.suggest(trial, BASE)
    logarithmic = {name for name, found in trial.distributions.items() if getattr(found, "log", False)}
    assert logarithmic == {"training.learning_rate", "training.weight_decay"}


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_a_given_value_that_is_not_offered_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        ALL.suggest(GivenTrial({**GIVEN, name: -1}), BASE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", (0.0, 1.0)),
        ("learning_rate", (1e-2, 1e-4)),
        ("learning_rate", [1e-4, 1e-2]),
        ("weight_decay", (0.1, math.inf)),
        ("weight_decay", (0.1,)),
        ("weight_decay", (True, True)),
        ("schedule", ("cosine", "step")),
        ("schedule", ("cosine", "cosine")),
        ("batch_size", (0, 8)),
        ("batch_size", [8]),
        ("warmup_steps", (-1, 5)),
        ("warmup_steps", (5, 1)),
        ("warmup_steps", (1.0, 5.0)),
    ],
)
def test_choices_out_of_their_range_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name}: "):
        TrainingChoices(**{name: value})


def test_a_searched_batch_size_is_priced():
    spec = space().suggest(RandomTrial(random.Random(0)))
    priced = space_for(space(16), replace(BASE, batch_size=64)).cost(spec)
    assert priced.train_step_flops == 4 * space(16).cost(spec).train_step_flops
    assert priced.params == space(16).cost(spec).params


def test_a_space_with_the_right_batch_size_is_taken_as_it_is():
    own = space(BASE.batch_size)
    assert space_for(own, BASE) is own


@dataclass(frozen=True)
class Unbatched:
    width: int = 3


@pytest.mark.parametrize("own", [Unbatched(), object()])
def test_a_space_without_a_batch_size_is_refused_by_its_name(own):
    with pytest.raises(ValueError, match=rf"^batch_size: {type(own).__name__} has no field of that name"):
        space_for(own, BASE)
