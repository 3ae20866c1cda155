"""What every space whose children inherit owes them: inherit, and give a `family` of `bench.growth`."""

import random

import pytest
import torch
from safetensors.torch import load, save
from torch.nn.functional import mse_loss

from bench.growth import (
    child_of,
    difference,
    difference_of,
    exact_pair,
    grown_exactly,
    inputs_of,
    lived_in,
)
from search_spaces import RandomTrial
from search_spaces.growth import inherit, relation

LEARNING_RATE = 3e-3


def a_lesson(space, *, seed=0):
    """Inputs and what to learn: what each token stands for, or what an unknown model makes of numbers."""
    inputs = inputs_of(space, seed, batch=24)
    torch.manual_seed(seed)
    teacher = lived_in(space.build(space.suggest(RandomTrial(random.Random(seed)))), seed).eval()
    with torch.no_grad():
        answers = teacher(inputs)
    for name, answer in answers.items():
        if not inputs[name].is_floating_point():
            tokens = inputs[name] if answer.ndim == 3 else inputs[name][:, -1]
            answers[name] = torch.randn(space.vocab, answer.size(-1))[tokens]
    return inputs, {name: (answer - answer.mean()) / answer.std() for name, answer in answers.items()}


def learn(model, lesson, steps):
    """Train, dropout off, and return the last loss."""
    inputs, targets = lesson
    optimizer = torch.optim.Adam(model.eval().parameters(), lr=LEARNING_RATE)
    for _ in range(steps):
        outputs = model(inputs)
        loss = sum(mse_loss(outputs[name], target) for name, target in targets.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def lines(weight):
    """Every row and every column of a matrix (of a kernel, at all its pixels)."""
    return [*weight, *weight.transpose(0, 1)] if weight.ndim > 1 else [weight]


class GrowthContract:
    pairs = 15

    @pytest.fixture
    def family(self):
        raise NotImplementedError

    def test_a_child_that_contains_its_parent_computes_what_it_does(self, family):
        for seed in range(self.pairs):
            pair = exact_pair(family, random.Random(seed))
            assert difference_of(family.space, *pair, seed) <= 1e-5, pair

    def test_a_child_like_its_parent_has_its_weights_bit_for_bit(self, family):
        for seed in range(8):
            spec = family.space.suggest(RandomTrial(random.Random(seed)))
            parent = lived_in(family.space.build(spec), seed)
            child = child_of(family.space, spec, parent, spec, seed + 1)
            assert relation(family.space, spec, spec).kind == "exact"
            assert all(
                torch.equal(one, parent.state_dict()[name]) for name, one in child.state_dict().items()
            )

    def test_generations_that_learn_between_stay_exact_when_they_grow(self, family):
        space, lesson = family.space, a_lesson(family.space)
        for seed in range(2):
            rng = random.Random(seed)
            old = space.suggest(RandomTrial(rng))
            parent = lived_in(space.build(old), seed)
            for _ in range(3):
                new = grown_exactly(family, old, rng)
                child = child_of(space, old, parent, new, seed)
                assert difference(parent, child, inputs_of(space, seed)) <= 1e-5, (old, new)
                learn(child, lesson, 2)
                old, parent = new, child

    def test_a_child_is_as_exact_after_it_was_saved(self, family):
        for seed in range(4):
            old, new = exact_pair(family, random.Random(seed))
            parent = lived_in(family.space.build(old), seed)
            child, again = child_of(family.space, old, parent, new, seed), family.space.build(new)
            again.load_state_dict(load(save(child.state_dict())))
            assert difference(parent, again, inputs_of(family.space, seed)) <= 1e-5

    def test_whatever_is_new_learns_within_a_few_steps(self, family):
        lesson = a_lesson(family.space)
        for seed in range(5):
            old, new = exact_pair(family, random.Random(seed))
            parent = lived_in(family.space.build(old), seed)
            child = child_of(family.space, old, parent, new, seed)
            before = {name: one.detach().clone() for name, one in child.named_parameters()}
            learn(child, lesson, 4)
            still = [
                torch.equal(*pair)
                for name, weight in child.named_parameters()
                if ".squeeze." not in name and ".excite." not in name
                for pair in zip(lines(weight), lines(before[name]), strict=True)
            ]
            # a relu may be dead on all of a small lesson; one that weighs channels has few others beside it
            assert sum(still) <= 0.03 * len(still), (old, new)

    def test_any_child_of_any_parent_trains(self, family):
        space, lesson = family.space, a_lesson(family.space)
        for seed in range(8):
            rng = random.Random(seed)
            old, new = (space.suggest(RandomTrial(rng)) for _ in range(2))
            torch.manual_seed(seed)
            parent, child = lived_in(space.build(old), seed), space.build(new)
            assert inherit(space, old, parent.state_dict(), new, child) == relation(space, old, new)
            losses = [learn(child, lesson, steps) for steps in (1, 6)]
            assert losses[1] < losses[0], (old, new)

    def test_a_child_that_takes_what_fits_is_ahead_of_a_fresh_one(self, family):
        space, lesson = family.space, a_lesson(family.space)
        losses = {"heir": 0.0, "fresh": 0.0}
        for seed in range(200, 204):
            rng = random.Random(seed)
            old = space.suggest(RandomTrial(rng))
            draws = (space.suggest(RandomTrial(rng)) for _ in range(999))
            new = next(spec for spec in draws if self.is_near(space, old, spec))
            parent = space.build(old)
            learn(parent, lesson, 30)
            torch.manual_seed(seed)
            losses["fresh"] += learn(space.build(new), lesson, 5)
            losses["heir"] += learn(child_of(space, old, parent, new, seed), lesson, 5)
        assert losses["heir"] < 0.8 * losses["fresh"]

    def is_near(self, space, old, new):
        return relation(space, old, new).kind in ("partial", "closest")

    def test_the_same_parent_and_the_same_model_make_the_same_child(self, family):
        old, new = exact_pair(family, random.Random(0))
        parent = family.space.build(old)
        one, other = (child_of(family.space, old, parent, new, 1).state_dict() for _ in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)
