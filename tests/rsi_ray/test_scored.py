"""Scores with their standard errors: those that scores over other samples really show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from rsi_ray.scoring import scored
from rsi_ray.tasks.task import Batch

CPU = torch.device("cpu")


class Given(nn.Module):
    """Answers what the inputs say: the first numbers of a row are its outputs."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, inputs):
        return {name: rows[..., : self.outputs] for name, rows in inputs.items()}


def score_of(outputs, targets):
    inputs = outputs.astype(np.float32)
    return scored(Given(inputs.shape[-1]), {"d": Batch(inputs=inputs, targets=targets)}, CPU)["d"]


def one_hot(answers, classes=2):
    return np.eye(classes, dtype=np.float32)[answers]


def classes_of(rng, count):
    return score_of(one_hot((rng.random(count) < 0.3).astype(int)), np.zeros(count, np.int64))


def sequences_of(rng, count):
    wrong = rng.random((count, 1)) + rng.random((count, 5)) < 0.6  # places of a sample go together
    return score_of(one_hot(wrong.astype(int)), np.zeros((count, 5), np.int64))


def numbers_of(rng, count):
    targets = rng.normal(size=(count, 2)).astype(np.float32)
    return score_of(targets + rng.normal(scale=0.5, size=(count, 2)), targets)


@pytest.mark.parametrize("draw", [classes_of, sequences_of, numbers_of])
def test_the_error_is_how_far_scores_on_other_samples_scatter(draw):
    rng = np.random.default_rng(0)
    found = [draw(rng, 200) for _ in range(400)]
    scatter = np.std([one.score for one in found])
    assert np.mean([one.error for one in found]) == pytest.approx(scatter, rel=0.1)


def test_a_perfect_score_is_not_certain():
    found = score_of(one_hot(np.zeros(256, int)), np.zeros(256, np.int64))
    assert found.score == 1
    assert 0.003 < found.error < 0.02


@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
def test_an_output_that_is_no_number_spoils_the_score_whatever_it_answers(spoilt):
    outputs = one_hot(np.zeros(8, int))
    outputs[3, 0] = spoilt
    assert math.isnan(score_of(outputs, np.zeros(8, np.int64)).score)


def test_of_numbers_that_do_not_vary_nothing_is_known():
    found = score_of(np.zeros((8, 1)), np.ones((8, 1), np.float32))
    assert math.isnan(found.score)
    assert found.error == 1.0
