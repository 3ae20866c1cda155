import pickle
import random
from dataclasses import dataclass, replace

import pytest
import torch.nn.functional as F
from torch import nn

from search_spaces import Head, RandomTrial, Sample, gpt2_space
from search_spaces.measured import MeasuredSpace, priced
from search_spaces.transformer import TransformerSpace
from tests.contracts.space_contract import SpaceContract, draw

CLASSES = 5


class TinyAttention(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, width)
        self.layers = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.readout = nn.Linear(width, CLASSES)

    def forward(self, inputs):
        x = self.embedding(inputs["tokens"])
        for layer in self.layers:
            q, k, v = layer(x).unsqueeze(1).chunk(3, dim=-1)
            x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)
        return {"tokens": self.readout(x[:, -1])}


@dataclass(frozen=True)
class TinySpec:
    width: int
    depth: int


@dataclass(frozen=True)
class TinySpace:
    widths: tuple = (4, 8, 16)
    length: int = 6

    def suggest(self, trial):
        width = trial.suggest_categorical("width", self.widths)
        return TinySpec(width=width, depth=trial.suggest_int("depth", 1, 3))

    def samples(self):
        return {"tokens": Sample(shape=(self.length,), dtype="int64")}

    def build(self, spec):
        return TinyAttention(spec.width, spec.depth)


class TestMeasuredSpace(SpaceContract):
    draws = 300

    # Measuring is what torch is needed for.
    test_a_price_needs_no_torch = None

    @pytest.fixture
    def space(self):
        return MeasuredSpace(inner=TinySpace(), batch_size=2)


@pytest.mark.parametrize("seed", range(8))
def test_a_measured_memory_is_near_the_price_by_arithmetic(seed):
    head = Head(name="lm", classes=48, length=12, dense=True)
    space = TransformerSpace(
        heads=(head,), batch_size=3, vocab=48, depth=(1, 2), widths=(16, 32), head_sizes=(4, 8)
    )
    spec = draw(space, seed)
    by_arithmetic, measured = space.cost(spec), MeasuredSpace(inner=space, batch_size=3).cost(spec)
    assert replace(measured, memory_bytes=0) == replace(by_arithmetic, memory_bytes=0)
    assert measured.memory_bytes <= by_arithmetic.memory_bytes <= 1.5 * measured.memory_bytes


class Features(nn.Module):
    def forward(self, inputs):
        return inputs["x"]


class Answer(nn.Module):
    def forward(self, outputs):
        return {"x": outputs}


class Counted:
    """A space whose specs may be anything; it counts its builds."""

    def __init__(self):
        self.builds = 0

    def suggest(self, trial):
        return {"width": trial.suggest_int("width", 1, 4)}

    def samples(self):
        return {"x": Sample(shape=(8,), dtype="float32")}

    def build(self, spec):
        self.builds += 1
        layer = nn.Linear(8, spec["width"] if isinstance(spec, dict) else 4)
        return nn.Sequential(Features(), layer, Answer())


@pytest.mark.parametrize(
    "spec", [3, "wide", (1, "a"), [1, [2]], {"width": 3}, {"width": 2, "more": {"a": [1]}}, TinySpec(1, 2)]
)
def test_a_spec_is_measured_once_whatever_the_batch_size(spec):
    inner = Counted()
    space = MeasuredSpace(inner=inner, batch_size=2)
    first = space.cost(spec)
    again = space.cost(pickle.loads(pickle.dumps(spec)))  # noqa: S301
    assert (first, inner.builds) == (again, 1)
    assert replace(space, batch_size=4).cost(spec).train_step_flops == 2 * first.train_step_flops
    assert inner.builds == 1


def test_specs_that_differ_in_a_type_alone_are_measured_each():
    inner = Counted()
    space = MeasuredSpace(inner=inner, batch_size=2)
    for spec in (1, 1.0, True, (1,), [1], (True,)):
        space.cost(spec)
    assert inner.builds == 6


def test_a_spec_that_has_no_hash_is_measured_every_time():
    inner = Counted()
    space = MeasuredSpace(inner=inner, batch_size=2)
    for _ in range(2):
        space.cost({1, 2})
    assert inner.builds == 2


def test_spaces_do_not_share_prices():
    short, long = (MeasuredSpace(inner=TinySpace(length=n), batch_size=1) for n in (6, 12))
    spec = TinySpec(width=4, depth=1)
    assert short.cost(spec).params == long.cost(spec).params
    assert short.cost(spec).forward_flops < long.cost(spec).forward_flops


def test_a_space_with_a_cost_is_priced_by_itself():
    space = gpt2_space()
    assert priced(space, 4) is space


def test_a_space_without_a_cost_is_measured_at_the_batch_size():
    space = priced(TinySpace(), 4)
    spec = space.suggest(RandomTrial(random.Random(0)))
    assert space == MeasuredSpace(inner=TinySpace(), batch_size=4)
    assert space.cost(spec).train_step_flops == 12 * space.cost(spec).forward_flops


def test_a_space_that_cannot_be_built_is_refused_by_what_it_lacks():
    with pytest.raises(TypeError, match=r"^int: no suggest, samples, build; expected"):
        priced(3, 4)


def test_heads_are_those_of_the_inner_space_where_it_has_any():
    space = gpt2_space()
    assert MeasuredSpace(inner=space, batch_size=1).heads == space.heads
    assert not hasattr(MeasuredSpace(inner=TinySpace(), batch_size=1), "heads")


@pytest.mark.parametrize("bad", [0, -1, True, None, 2.0])
def test_a_bad_batch_size_is_refused(bad):
    with pytest.raises(ValueError, match=r"^batch_size: .*expected an integer"):
        MeasuredSpace(inner=TinySpace(), batch_size=bad)


def test_a_measured_space_travels_to_a_worker():
    space = MeasuredSpace(inner=TinySpace(), batch_size=2)
    spec = draw(space, 0)
    price = space.cost(spec)
    assert pickle.loads(pickle.dumps(space)).cost(spec) == price  # noqa: S301
