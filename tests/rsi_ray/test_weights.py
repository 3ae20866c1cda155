"""Weights of a file: put in where they are what was said, refused in one line where they aren't."""

from __future__ import annotations

import hashlib
import pickle
import warnings

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from rsi_ray.weights import load_weights
from safety import ArtifactError

GOOD = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}


def written(path, content):
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_weights_of_the_file_that_was_told_are_put_in(tmp_path):
    model = nn.Linear(3, 2)
    load_weights(model, tmp_path / "w", written(tmp_path / "w", save(GOOD)))
    assert model.weight.eq(1).all()
    assert model.weight.requires_grad


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"weight": torch.ones(3, 2), "bias": torch.ones(2)},
            r"weight: \(3, 2\) of float32, expected \(2, 3\)",
        ),
        (
            {**GOOD, "bias": torch.ones(2, dtype=torch.float64)},
            r"bias: \(2,\) of float64, expected \(2,\) of",
        ),
        ({"weight": torch.ones(2, 3)}, r"bias: none, expected \(2,\) of float32"),
        ({**GOOD, "more": torch.ones(1)}, r"more: \(1,\) of float32, expected none"),
    ],
)
def test_weights_of_another_architecture_are_refused_and_nothing_is_changed(tmp_path, weights, message):
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    save_file(weights, tmp_path / "w")
    digest = hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest()
    with pytest.raises(ArtifactError, match=message):
        load_weights(model, tmp_path / "w", digest)
    assert model.weight.equal(before)


def test_weights_that_came_along_are_put_in_where_the_file_is_on_another_machine(tmp_path):
    model, content = nn.Linear(3, 2), save(GOOD)
    load_weights(model, tmp_path / "elsewhere", hashlib.sha256(content).hexdigest(), content)
    assert model.weight.eq(1).all()


def test_weights_that_came_along_and_are_others_are_refused(tmp_path):
    digest = written(tmp_path / "w", save(GOOD))
    with pytest.raises(ArtifactError, match="expected the file of digest"):
        load_weights(nn.Linear(3, 2), tmp_path / "w", digest, save({**GOOD, "bias": torch.zeros(2)}))


class Payload:
    """A pickle that warns where it is loaded."""

    def __reduce__(self):
        return warnings.warn, ("the payload has run",)


def test_a_pickle_is_refused_and_its_payload_not_run(tmp_path):
    digest = written(tmp_path / "w", pickle.dumps(Payload()))
    with pytest.raises(ArtifactError, match="no safetensors") as refused:
        load_weights(nn.Linear(3, 2), tmp_path / "w", digest)
    assert "\n" not in str(refused.value)


def test_a_link_is_refused(tmp_path):
    digest = written(tmp_path / "real", save(GOOD))
    (tmp_path / "w").symlink_to(tmp_path / "real")
    with pytest.raises(ArtifactError, match="found a symbolic link"):
        load_weights(nn.Linear(3, 2), tmp_path / "w", digest)


def test_another_file_than_the_one_that_was_told_is_refused(tmp_path):
    written(tmp_path / "w", save(GOOD))
    with pytest.raises(ArtifactError, match="expected the file of digest 'abc', found"):
        load_weights(nn.Linear(3, 2), tmp_path / "w", "abc")
