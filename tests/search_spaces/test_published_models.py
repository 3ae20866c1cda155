import copy
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces import Head, RandomTrial
from search_spaces.footprint import footprint
from search_spaces.hw_gpt import GptSpec, HwGpt
from search_spaces.hw_gpt_model import Layer
from search_spaces.measure import measure_space
from search_spaces.nas_bench_201 import CellSpec, NasBench201
from search_spaces.nas_bench_201_model import Cell
from search_spaces.nas_bench_macro import MacroSpec, NasBenchMacro
from search_spaces.nas_bench_macro_model import make_block
from search_spaces.tabular import TabularSpace
from search_spaces.transformer_model import rotary_table
from tests.contracts.space_contract import SpaceContract, draw


def without_table(architectures, *, batch_size=2):
    return TabularSpace(architectures=architectures, path=Path("none"), digest="", batch_size=batch_size)


SMALL_TEXT = Head(name="text", classes=300, length=16, dense=True)
SPACES = [NasBenchMacro(), NasBench201(), HwGpt(head=SMALL_TEXT), HwGpt()]


# Hundreds of operators each: a measurement takes 0.1 to 0.2 s.
class TestNasBenchMacro(SpaceContract):
    draws = 100

    @pytest.fixture
    def space(self):
        return without_table(NasBenchMacro())


class TestNasBench201(SpaceContract):
    draws = 100

    @pytest.fixture
    def space(self):
        return without_table(NasBench201())


class TestHwGpt(SpaceContract):
    draws = 100

    @pytest.fixture
    def space(self):
        return without_table(HwGpt(head=SMALL_TEXT))


@pytest.mark.parametrize("seed", range(5))
def test_a_language_model_of_the_published_size_is_measured_at_its_price(seed):
    space = without_table(HwGpt())
    spec = draw(space, seed)
    cost, measured = space.cost(spec), measure_space(space, spec)
    assert (cost.params, cost.forward_flops) == (measured.params, measured.forward_flops)


def backward_of_convolution(grad_out, inputs, weight, *rest, out_shape=None, **_):
    # torch's own formula leaves the groups of a convolution out of one of the two products.
    products = sum(rest[-1][:2])
    return 2 * products * math.prod(grad_out) * math.prod(weight[1:])


def forward_and_backward(space, spec):
    """FLOPs of one training step by torch's own counter."""
    formulas = {torch.ops.aten.convolution_backward: backward_of_convolution}
    with torch.device("meta"):
        model = space.build(spec)
        inputs = {
            name: torch.zeros((space.batch_size, *sample.shape), dtype=getattr(torch, sample.dtype))
            for name, sample in space.samples().items()
        }
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            sum(output.sum() for output in model(inputs).values()).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("architectures", SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_the_price_of_a_step_is_at_most_a_hundredth_over_what_torch_counts(architectures, seed):
    space = without_table(architectures)
    spec = draw(space, seed)
    counted = forward_and_backward(space, spec)
    assert counted <= space.cost(spec).train_step_flops <= 1.01 * counted


@pytest.mark.parametrize("architectures", SPACES[:3])
def test_what_is_measured_as_kept_is_what_a_real_forward_keeps(architectures):
    space = without_table(architectures)
    spec = draw(space, 0)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    model = space.build(spec)
    inputs = {
        n: torch.zeros((1, *s.shape), dtype=getattr(torch, s.dtype)) for n, s in space.samples().items()
    }
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(inputs)
    fixed = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    real = sum(storage.nbytes() for key, storage in kept.items() if key not in fixed)
    real += 3 * sum(output.nbytes for output in outputs.values())
    # A fused kernel lays its result out so that joining the heads copies nothing.
    assert 0.999 * real <= footprint(space, spec).kept_bytes <= 1.06 * real


@pytest.mark.parametrize("architectures", SPACES)
@pytest.mark.parametrize("seed", range(6))
def test_the_memory_is_at_least_what_autograd_keeps_and_near_it(architectures, seed):
    space = without_table(architectures)
    spec = draw(space, seed)
    kept = footprint(space, spec).kept_bytes
    priced = architectures.per_sample(spec).kept_bytes
    assert kept <= priced <= 1.35 * kept
    assert space.cost(spec).memory_bytes == 16 * space.cost(spec).params + 2 * priced


GPT_SPEC = GptSpec(embed=192, mlp_ratios=(2,) * 10, heads=(4,) * 10, bias=True)


def test_only_the_layers_that_a_depth_has_are_asked():
    space = HwGpt()
    for seed in range(20):
        trial = RandomTrial(random.Random(seed))
        spec = space.suggest(trial)
        assert len(trial.params) == 3 + 2 * spec.n_layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MacroSpec(blocks=("identity",) * 7), "blocks: .*expected a tuple of 8"),
        (lambda: MacroSpec(blocks=("identity",) * 7 + ("mb9",)), r"blocks\[7\]: 'mb9', expected one of"),
        (lambda: CellSpec(operations=("skip",) * 5), "operations: .*expected a tuple of 6"),
        (lambda: CellSpec(operations=("pool",) + ("skip",) * 5), r"operations\[0\]: 'pool', expected one of"),
        (lambda: replace(GPT_SPEC, embed=200), "embed: 200, expected one of"),
        (lambda: replace(GPT_SPEC, heads=(4,) * 9), r"number of heads: 9, expected one of \[10\]"),
        (lambda: replace(GPT_SPEC, heads=(5,) * 10), r"heads\[0\]: 5, expected one of"),
        (lambda: replace(GPT_SPEC, mlp_ratios=(2,) * 9), "number of mlp_ratios: 9, expected one of"),
        (lambda: replace(GPT_SPEC, bias=1), "bias: 1, expected one of"),
        (lambda: HwGpt(head=replace(SMALL_TEXT, dense=False)), "head: .*expected a dense one"),
        (lambda: NasBench201(head=replace(NasBench201().head, height=30)), "multiples of 4"),
    ],
)
def test_what_is_outside_the_space_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_language_model_reads_no_later_token():
    torch.manual_seed(0)
    space = HwGpt(head=SMALL_TEXT)
    model = space.build(draw(space, 1))
    before = torch.randint(300, (1, 16))
    after = before.clone()
    after[:, 9] = (after[:, 9] + 1) % 300
    old, new = model({"text": before})["text"], model({"text": after})["text"]
    torch.testing.assert_close(new[:, :9], old[:, :9], rtol=0, atol=1e-5)
    assert (new[:, 9:] - old[:, 9:]).abs().amax() > 1e-3


def test_a_fresh_language_model_is_about_as_unsure_as_a_uniform_guess():
    torch.manual_seed(0)
    space = HwGpt(head=SMALL_TEXT)
    tokens = torch.randint(300, (4, 16))
    logits = space.build(draw(space, 2))({"text": tokens})["text"]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
    assert abs(loss.item() - math.log(300)) < 0.3


def test_the_order_of_earlier_tokens_matters_to_a_language_model():
    torch.manual_seed(0)
    space = HwGpt(head=SMALL_TEXT)
    model = space.build(draw(space, 1))
    before = torch.arange(16)[None]
    swapped = before.clone()
    swapped[:, [0, 1]] = before[:, [1, 0]]
    assert (
        model({"text": swapped})["text"][:, -1] - model({"text": before})["text"][:, -1]
    ).abs().max() > 1e-4


def test_attention_and_feed_forward_of_a_language_model_read_the_same_stream():
    torch.manual_seed(0)
    layer = Layer(GPT_SPEC, 0)
    x, rotary = torch.randn(2, 5, 192), rotary_table(5, 32)
    whole = layer(x, rotary)
    parts = []
    for silenced in (layer.attention, layer.ffn):
        one = copy.deepcopy(layer)
        silent = one.attention if silenced is layer.attention else one.ffn
        for parameter in silent.proj.parameters():
            nn.init.zeros_(parameter)
        parts.append(one(x, rotary) - x)
    torch.testing.assert_close(whole, x + parts[0] + parts[1])
    assert min(part.abs().amax() for part in parts) > 1e-3


IMAGE = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("operations", "times"),
    [
        (("skip",) * 6, 4),
        (("none",) * 6, 0),
        (("none",) * 3 + ("skip", "none", "none"), 1),
        (("skip", "none", "skip", "none", "none", "skip"), 1),
        (("skip", "skip", "skip", "none", "none", "skip"), 2),
        (("skip", "none", "none", "none", "skip", "none"), 1),
        (("none", "skip", "none", "none", "skip", "none"), 0),
    ],
)
def test_a_node_of_a_cell_is_the_sum_of_what_its_edges_bring(operations, times):
    torch.testing.assert_close(Cell(CellSpec(operations=operations), 16)(IMAGE), times * IMAGE)


def test_pooling_in_a_cell_leaves_an_even_image_as_it_is():
    even = torch.ones(1, 16, 8, 8)
    cell = Cell(CellSpec(operations=("none",) * 3 + ("avg_pool3x3", "none", "none")), 16)
    torch.testing.assert_close(cell(even), even)
    assert not torch.allclose(cell(IMAGE), IMAGE)


def test_a_mobile_block_adds_its_input_where_the_shapes_allow_it():
    for stride, out_channels, expected in ((1, 16, IMAGE), (2, 32, torch.zeros(2, 32, 4, 4))):
        block = make_block("mb3_k3", 16, out_channels, stride)
        nn.init.zeros_(block.layers[-1][1].weight)
        torch.testing.assert_close(block(IMAGE), expected)


def test_an_identity_of_a_mobile_network_is_one_where_the_shapes_allow_it():
    assert make_block("identity", 16, 16, 1)(IMAGE) is IMAGE
    assert make_block("identity", 16, 32, 2)(IMAGE).shape == (2, 32, 4, 4)
