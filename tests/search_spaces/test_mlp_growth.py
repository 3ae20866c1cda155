from dataclasses import replace

import pytest
import torch

from bench.growth import FAMILIES, PERCEPTRONS, child_of, difference_of, lived_in
from search_spaces import MLPSpec
from search_spaces.growth import relation
from search_spaces.mlp_relation import align
from tests.contracts.growth_contract import GrowthContract

SPEC = MLPSpec(widths=(8, 12, 12), activation="relu", norm="none", residual=True)
NORMED = replace(SPEC, norm="layernorm")
CHAIN = MLPSpec(widths=(8, 12), activation="relu", norm="none", residual=False)
ACTIVATIONS = ("relu", "gelu", "silu", "swiglu")


class TestGrowth(GrowthContract):
    @pytest.fixture
    def family(self):
        return FAMILIES["mlp"]


def grown(old, **change):
    new = replace(old, **change)
    return relation(PERCEPTRONS, old, new), max(
        difference_of(PERCEPTRONS, old, new, seed) for seed in range(3)
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("old", "widths", "residual"),
    [
        (SPEC, (9, 13, 13), True),
        (SPEC, (8, 12, 12, 12, 12), True),
        (SPEC, (8, 8, 12, 12), True),
        (SPEC, (8, 16, 16, 16), True),
        (NORMED, (16, 12, 12), True),
        (NORMED, (8, 24, 24, 24), True),
        (NORMED, (8, 8, 8, 12, 12, 12), True),
        (CHAIN, (8, 12, 24), False),
        (CHAIN, (8, 16, 12), False),
        (CHAIN, (14, 8, 12), False),
        (CHAIN, (8, 12, 24, 24), True),
        (replace(SPEC, widths=(8, 8)), (8, 16, 16), True),
    ],
    ids=str,
)
def test_growth_along_every_axis_is_exact(activation, old, widths, residual):
    found, worst = grown(replace(old, activation=activation), widths=widths, residual=residual)
    assert found.kind == "exact"
    assert worst <= 1e-5


@pytest.mark.parametrize(
    ("old", "change", "reason"),
    [
        (NORMED, {"widths": (8, 18, 18)}, "widths[1]: 18 is no multiple of the parent's 12"),
        (
            replace(NORMED, residual=False),
            {"widths": (8, 12, 12, 24)},
            "widths[3]: a layer more that doesn't add its input, after a layernorm",
        ),
        (
            replace(CHAIN, activation="gelu"),
            {"widths": (8, 12, 16)},
            "widths[2]: 16, a layer more needs 24 to pass on its input",
        ),
    ],
)
def test_where_no_map_is_exact_the_child_says_so_and_is_near(old, change, reason):
    found, worst = grown(old, **change)
    assert found.kind == "closest"
    assert found.reasons[0].startswith(reason)
    assert 1e-5 < worst < 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"widths": (8, 8, 8)}, "widths[1]: 8, the parent has 12"),
        ({"widths": (12, 12)}, "depth: 2, the parent has 3"),
        ({"residual": False}, "residual: the layer of widths[2] doesn't add its input"),
        ({"widths": (12, 12, 12)}, "residual: the layer of widths[1] adds its input, the parent's doesn't"),
        ({"activation": "gelu"}, "activation: gelu, the parent's is relu"),
        ({"norm": "layernorm"}, "norm: layernorm, the parent's is none"),
    ],
)
def test_a_child_that_lacks_something_of_its_parent_says_what(change, reason):
    found, _ = grown(SPEC, **change)
    assert found.kind == "partial"
    assert reason in found.reasons


def test_gated_layers_take_nothing_from_others():
    found, _ = grown(SPEC, activation="swiglu")
    assert found.kind == "none"


def test_of_equal_alignments_new_layers_are_last():
    old, new = replace(SPEC, widths=(8, 8)), replace(SPEC, widths=(8, 8, 8, 8))
    assert align(old, new, features=7).places == (0, 1, None, None)


def test_a_layer_is_put_in_where_it_can_pass_on_what_it_reads():
    assert align(CHAIN, replace(CHAIN, widths=(8, 8, 12), residual=True), features=7).places == (0, None, 1)


def test_a_deep_alignment_is_found_at_once():
    old = replace(SPEC, widths=(8,) * 40)
    assert align(old, replace(SPEC, widths=(8,) * 80), features=7).places[:41] == (*range(40), None)


def test_a_new_relu_layer_lifts_all_units_alike_and_so_has_a_gradient():
    parent, new = lived_in(PERCEPTRONS.build(SPEC), 0), replace(SPEC, widths=(8, 12, 12, 12))
    child = child_of(PERCEPTRONS, SPEC, parent, new, 0)
    layer, x = child.backbone[3], torch.rand(5, 12)
    torch.testing.assert_close(layer(x) - x, torch.full((5, 12), 0.5))
    child({"kind": torch.randn(5, 7)})["kind"].square().sum().backward()
    assert (layer.linear.weight.grad.abs().sum(1) > 0).all()
