import pickle
import random
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from bench.growth import FAMILIES, exact_pair
from search_spaces import RandomTrial, Sample
from search_spaces.growth import Inheritance, inherit, relation
from search_spaces.measured import MeasuredSpace

WITHOUT_TORCH = """
import pickle, sys
from search_spaces.growth import relation
print(*[relation(space, old, new).kind for space, old, new in pickle.load(sys.stdin.buffer)])
assert "torch" not in sys.modules
"""


@dataclass(frozen=True)
class Lines:
    """A space of somebody else: one linear layer, as wide as its spec says."""

    def suggest(self, trial):
        return trial.suggest_int("width", 1, 9)

    def samples(self):
        return {"rows": Sample(shape=(3,), dtype="float32")}

    def build(self, spec):
        return nn.Linear(3, spec)


class GrowingLines(Lines):
    def relation(self, old, new):
        return Inheritance(kind="exact" if new >= old else "partial")

    def inherit(self, old, parent, new, fresh):
        return {name: torch.cat((parent[name], weight[old:])) for name, weight in fresh.items()}


class ForgetfulLines(GrowingLines):
    def inherit(self, old, parent, new, fresh):
        return {"weight": fresh["weight"]}


class HalfLines(Lines):
    def inherit(self, old, parent, new, fresh):
        return fresh


def test_a_relation_needs_no_torch():
    pairs = [(f.space, *exact_pair(f, random.Random(0))) for f in FAMILIES.values()]
    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(command, input=pickle.dumps(pairs), capture_output=True, timeout=60, check=False)
    assert done.stdout.split() == [b"exact"] * 3, done.stderr.decode()


def test_a_space_without_growth_leaves_its_children_fresh():
    space = Lines()
    parent, child = space.build(3), space.build(4)
    before = child.weight.clone()
    found = inherit(space, 3, parent.state_dict(), 4, child)
    assert found == relation(space, 3, 4)
    assert (found.kind, found.reasons) == ("none", ("Lines: a space without growth",))
    assert torch.equal(child.weight, before)


@pytest.mark.parametrize("space", [GrowingLines(), MeasuredSpace(inner=GrowingLines(), batch_size=2)])
def test_a_space_of_somebody_else_may_have_growth_of_its_own(space):
    parent, child = space.build(3), space.build(4)
    assert inherit(space, 3, parent.state_dict(), 4, child) == relation(space, 3, 4)
    assert relation(space, 3, 4).kind == "exact"
    assert torch.equal(child.weight[:3], parent.weight)


def test_a_space_with_one_of_the_two_doors_is_told_of_the_other():
    with pytest.raises(TypeError, match=r"HalfLines: inherit without relation; expected both, or neither"):
        relation(HalfLines(), 3, 4)


def test_growth_that_leaves_a_weight_out_changes_nothing():
    space = ForgetfulLines()
    child = space.build(4)
    before = child.weight.clone()
    with pytest.raises(ValueError, match=r"^bias: inherited in another shape"):
        inherit(space, 3, space.build(3).state_dict(), 4, child)
    assert torch.equal(child.weight, before)


def drop_one(weights):
    return dict(list(weights.items())[1:])


def add_one(weights):
    return {**weights, "more": torch.zeros(1)}


def cut_one(weights):
    name = next(iter(weights))
    return {**weights, name: weights[name][1:]}


@pytest.mark.parametrize("spoil", [drop_one, add_one, cut_one])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_weights_that_are_not_of_the_parents_spec_are_refused_and_nothing_is_changed(family, spoil):
    old, new = exact_pair(family, random.Random(1))
    weights, child = spoil(family.space.build(old).state_dict()), family.space.build(new)
    before = {name: weight.clone() for name, weight in child.state_dict().items()}
    with pytest.raises(ValueError, match=r"^weights: .* is .*, the spec has"):
        inherit(family.space, old, weights, new, child)
    assert all(torch.equal(weight, before[name]) for name, weight in child.state_dict().items())


def test_a_model_of_another_spec_is_refused():
    family = FAMILIES["mlp"]
    old, new = exact_pair(family, random.Random(1))
    parent = family.space.build(old)
    with pytest.raises(ValueError, match=r"^model: .* is .*, the spec has"):
        inherit(family.space, old, parent.state_dict(), new, family.space.build(old))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_inheriting_draws_nothing_at_random_and_leaves_the_parent_alone(family):
    old, new = exact_pair(family, random.Random(2))
    parent, child = family.space.build(old), family.space.build(new)
    before = {name: weight.clone() for name, weight in parent.state_dict().items()}
    state = torch.get_rng_state()
    inherit(family.space, old, parent.state_dict(), new, child)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weight, before[name]) for name, weight in parent.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_only_an_exact_relation_goes_without_reasons(family):
    for seed in range(200):
        rng = random.Random(seed)
        found = relation(family.space, *(family.space.suggest(RandomTrial(rng)) for _ in range(2)))
        assert (found.kind == "exact") == (found.reasons == ())
