from dataclasses import replace

import pytest
import torch

from bench.growth import CONVNETS, FAMILIES, child_of, difference_of, lived_in
from search_spaces import ConvSpec, ConvStage
from search_spaces.convnet_relation import place_hidden
from search_spaces.growth import relation
from tests.contracts.growth_contract import GrowthContract

STAGE = ConvStage(
    depth=1, width=16, kernel_size=3, expansion=2, groups=4, squeeze_excite=False, downsample=None
)
PLAIN = replace(STAGE, expansion=1)


class TestGrowth(GrowthContract):
    @pytest.fixture
    def family(self):
        return FAMILIES["conv"]


def pair(old, change, *, downsample="avg"):
    """The same change in both of two stages."""
    stages = (old, replace(old, downsample="avg"))
    new = (replace(old, **change), replace(old, downsample=downsample, **change))
    return ConvSpec(stages=stages), ConvSpec(stages=new)


def worst(old, new):
    return max(difference_of(CONVNETS, old, new, seed) for seed in range(3))


@pytest.mark.parametrize(
    ("old", "change"),
    [
        (STAGE, {"depth": 3}),
        (STAGE, {"width": 24}),
        (STAGE, {"width": 24, "expansion": 3, "groups": 1}),
        (STAGE, {"expansion": 3}),
        (STAGE, {"kernel_size": 7}),
        (STAGE, {"groups": 1}),
        (STAGE, {"groups": 2}),
        (STAGE, {"squeeze_excite": True}),
        (replace(STAGE, squeeze_excite=True), {"width": 32}),
        (replace(STAGE, groups=32), {"groups": 8}),
        (replace(STAGE, groups=32), {"groups": 48, "expansion": 3}),
        (PLAIN, {"width": 48, "kernel_size": 5}),
        (replace(PLAIN, groups=2), {"width": 48, "groups": 3}),
        (replace(PLAIN, groups=16), {"width": 24, "groups": 24, "squeeze_excite": True}),
    ],
    ids=str,
)
@pytest.mark.parametrize("downsample", ["avg", "conv"])
def test_growth_along_every_axis_is_exact(old, change, downsample):
    old, new = pair(old, change, downsample=downsample)
    assert relation(CONVNETS, old, new).kind == "exact"
    assert worst(old, new) <= 1e-5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"width": 8}, "width: 8, the parent has 16"),
        ({"kernel_size": 1}, "kernel_size: 1, the parent has 3"),
        ({"expansion": 1}, "expansion: 1, the parent has 2"),
        ({"groups": 32}, "groups: 32 of 32, the parent has 4 of 32"),
        ({"groups": 8}, "groups: 8 of 32, the parent has 4 of 32"),
    ],
)
def test_a_child_that_lacks_something_of_its_parent_says_what(change, reason):
    found = relation(CONVNETS, *pair(STAGE, change))
    assert found.kind == "partial"
    assert f"stages[0].{reason}" in found.reasons
    assert f"stages[1].{reason}" in found.reasons


def test_a_child_without_one_of_its_parents_parts_says_so():
    old = ConvSpec(stages=(replace(STAGE, squeeze_excite=True, depth=2), replace(STAGE, downsample="max")))
    new = ConvSpec(stages=(STAGE,))
    assert relation(CONVNETS, old, new).reasons == (
        "stages[0].depth: 1, the parent has 2",
        "stages[0].squeeze_excite: False, the parent has it",
        "stages[1]: missing, the parent has one",
    )
    two = ConvSpec(stages=(STAGE, replace(STAGE, downsample="conv")))
    assert relation(CONVNETS, old, two).reasons[-1] == "stages[1].downsample: conv, the parent has max"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"expansion": 4}, "stages[0].expansion: 4, the parent doesn't widen"),
        (None, "stages[1]: the parent has none, and sees larger images in the end"),
    ],
)
def test_where_no_map_is_exact_the_child_says_so(change, reason):
    old = ConvSpec(stages=(PLAIN,))
    more = (replace(PLAIN, **change),) if change else (PLAIN, replace(PLAIN, downsample="max"))
    found = relation(CONVNETS, old, ConvSpec(stages=more))
    assert (found.kind, found.reasons) == ("closest", (reason,))
    assert worst(old, ConvSpec(stages=more)) > 1e-5


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((16, 2), (32, 4), range(16)),
        ((16, 2), (32, 2), range(16)),
        ((16, 2), (48, 3), range(16)),
        ((24, 1), (48, 2), range(24)),
        # the second half would lie across two of the child's groups
        ((32, 2), (48, 2), [*range(16), *[-1] * 8, *range(16, 32)]),
        ((24, 2), (32, 2), None),
        ((16, 4), (24, 8), None),
        ((32, 1), (16, 1), None),
    ],
)
def test_channels_that_are_filtered_together_are_put_where_they_stay_so(old, new, expected):
    old, new = (replace(PLAIN, width=width, groups=groups) for width, groups in (old, new))
    source = place_hidden(old, new)
    if expected is None:
        assert source is None
    else:
        found = [one for one in source if one != -1]
        assert found == list(range(old.hidden))
        assert list(source[: len(expected)]) == list(expected)


def test_a_stage_more_passes_on_what_it_sees():
    old = ConvSpec(stages=(STAGE,))
    new = ConvSpec(stages=(STAGE, replace(STAGE, width=24, downsample="conv")))
    parent = lived_in(CONVNETS.build(old), 0)
    state = child_of(CONVNETS, old, parent, new, 0).state_dict()
    torch.testing.assert_close(state["backbone.2.1.weight"][:16].sum((2, 3)), torch.eye(16))
    assert not state["backbone.3.layers.7.weight"].any()
    assert torch.equal(
        state["readouts.to_digits.weight"][:, :16], parent.state_dict()["readouts.to_digits.weight"]
    )


def test_squeeze_and_excite_that_is_new_begins_to_weigh_the_channels_alike_and_learns():
    old, new = pair(STAGE, {"squeeze_excite": True})
    parent = lived_in(CONVNETS.build(old), 0)
    child = child_of(CONVNETS, old, parent, new, 0)
    narrow, wide = (model.backbone[1].layers[at].weight for model, at in ((parent, 6), (child, 7)))
    assert torch.equal(wide, 2 * narrow)
    excite = child.backbone[1].layers[6].excite
    x = torch.rand(2, 32, 5, 5)
    torch.testing.assert_close(child.backbone[1].layers[6](x), x / 2)
    child({"digits": torch.randn(8, 1, 9, 12)})["digits"].square().sum().backward()
    assert (excite.weight.grad.abs().sum(1) > 0).all()
