"""What a candidate inherits: the champion's weights, if they are still those that were promoted."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rsi_ray.heritage import Parent
from rsi_ray.weights import distinct
from safety import ArtifactError, artifact_digest
from tests.rsi_ray.champions import SPACE, SPEC

DEEPER = replace(SPEC, depth=2)
INPUTS = {"text": torch.arange(6)[None], "sums": torch.arange(5)[None]}


class Payload:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


@pytest.fixture
def model():
    torch.manual_seed(1)
    return SPACE.build(SPEC).eval()


@pytest.fixture
def parent(model, tmp_path):
    path = tmp_path / "champion.safetensors"
    save_file({name: tensor.detach().clone() for name, tensor in distinct(model)}, path)
    return Parent(
        weights=path, artifact=artifact_digest(path), config={"depth": 1}, spec=SPEC, train_flops=10**30
    )


def test_a_child_that_contains_its_parent_computes_what_it_does(parent, model):
    child = SPACE.build(DEEPER).eval()
    assert parent.give(SPACE, DEEPER, child).kind == "exact"
    expected, found = model(INPUTS), child(INPUTS)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=0)


def test_weights_that_are_not_those_that_were_promoted_are_not_read(parent):
    parent.weights.write_bytes(parent.weights.read_bytes()[:-1] + b"!")
    child = SPACE.build(SPEC)
    before = [tensor.clone() for _, tensor in distinct(child)]
    with pytest.raises(ArtifactError, match="expected the file of digest"):
        parent.give(SPACE, SPEC, child)
    assert all(torch.equal(old, new) for old, (_, new) in zip(before, distinct(child), strict=True))


def test_a_link_is_no_champion(parent, tmp_path):
    elsewhere = parent.weights.rename(tmp_path / "elsewhere")
    parent.weights.symlink_to(elsewhere)
    with pytest.raises(ArtifactError):
        parent.give(SPACE, SPEC, SPACE.build(SPEC))


def test_a_pickle_is_no_champion_even_where_its_digest_is_right(parent, tmp_path):
    parent.weights.write_bytes(pickle.dumps(Payload(tmp_path / "pwned")))
    pickled = replace(parent, artifact=artifact_digest(parent.weights))
    with pytest.raises(ArtifactError, match="no safetensors"):
        pickled.give(SPACE, SPEC, SPACE.build(SPEC))
    assert not (tmp_path / "pwned").exists()


def test_what_a_run_writes_down_of_it_is_json(parent):
    told = json.loads(json.dumps(parent.about()))
    assert told == {
        "weights": str(parent.weights), "artifact": parent.artifact, "config": {"depth": 1},
        "train_flops": 10**30,
    }  # fmt: skip
