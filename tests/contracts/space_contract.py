"""What every search space owes its samplers, the governor and the referee: inherit, and give a `space`."""

import pickle
import random
import subprocess
import sys

import optuna
import pytest
import torch

from search_spaces import RandomTrial
from search_spaces.measure import measure_space

WITHOUT_TORCH = """
import pickle, random, sys
from search_spaces import RandomTrial
space = pickle.load(sys.stdin.buffer)
for seed in range(20):
    space.cost(space.suggest(RandomTrial(random.Random(seed))))
assert "torch" not in sys.modules
"""


def draw(space, seed):
    return space.suggest(RandomTrial(random.Random(seed)))


class SpaceContract:
    draws = 1_000

    @pytest.fixture
    def space(self):
        raise NotImplementedError

    def test_the_price_is_what_the_referee_counts(self, space):
        for seed in range(self.draws):
            spec = draw(space, seed)
            cost, measured = space.cost(spec), measure_space(space, spec)
            assert (cost.params, cost.forward_flops) == (measured.params, measured.forward_flops), spec

    def test_every_price_is_a_positive_integer(self, space):
        for seed in range(100):
            cost = space.cost(draw(space, seed))
            prices = (cost.params, cost.forward_flops, cost.train_step_flops, cost.memory_bytes)
            assert all(type(price) is int and price > 0 for price in prices)

    def test_a_price_needs_no_torch(self, space):
        command = [sys.executable, "-c", WITHOUT_TORCH]
        done = subprocess.run(
            command, input=pickle.dumps(space), capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def test_a_spec_is_rebuilt_from_its_parameters(self, space):
        for seed in range(200):
            trial = RandomTrial(random.Random(seed))
            spec = space.suggest(trial)
            assert space.suggest(optuna.trial.FixedTrial(trial.params)) == spec

    def test_different_parameters_are_different_specs(self, space):
        specs = {}
        for seed in range(200):
            trial = RandomTrial(random.Random(seed))
            assert specs.setdefault(space.suggest(trial), trial.params) == trial.params

    def test_a_name_has_the_same_choices_in_every_trial(self, space):
        # Optuna raises where a study sees one name with two distributions.
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        known = {}
        for _ in range(100):
            trial = study.ask()
            space.suggest(trial)
            for name, distribution in trial.distributions.items():
                assert known.setdefault(name, distribution) == distribution
            study.tell(trial, 0.0)

    def test_the_built_model_takes_one_step_on_a_sample_of_every_head(self, space):
        for seed in range(5):
            model = space.build(draw(space, seed))
            samples = space.samples().items()
            outputs = model(
                {n: torch.zeros((2, *s.shape), dtype=getattr(torch, s.dtype)) for n, s in samples}
            )
            assert set(outputs) == set(space.samples())
            sum(output.square().sum() for output in outputs.values()).backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
