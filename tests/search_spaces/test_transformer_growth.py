from dataclasses import replace

import pytest
import torch

from bench.growth import FAMILIES, TRANSFORMERS, child_of, difference_of, lived_in
from search_spaces import TransformerSpec
from search_spaces.growth import relation
from search_spaces.transformer_relation import place_heads, place_turns
from tests.contracts.growth_contract import GrowthContract

SPEC = TransformerSpec(
    depth=2,
    width=32,
    heads=4,
    kv_heads=2,
    ffn_width=48,
    ffn_kind="gelu",
    norm="rmsnorm",
    position="rotary",
    tied=True,
)
LAYERNORM = replace(SPEC, norm="layernorm")
UNTIED = replace(LAYERNORM, tied=False)
WIDER = {"width": 48, "heads": 6}


class TestGrowth(GrowthContract):
    @pytest.fixture
    def family(self):
        return FAMILIES["transformer"]

    def is_near(self, space, old, new):
        # an embedding that is suddenly read as well is little use where inputs and outputs are no language
        return super().is_near(space, old, new) and (old.tied or not new.tied)


def grown(old, change):
    new = replace(old, **change)
    return relation(TRANSFORMERS, old, new), max(
        difference_of(TRANSFORMERS, old, new, seed) for seed in range(3)
    )


@pytest.mark.parametrize(
    ("old", "change"),
    [
        (SPEC, {"depth": 5}),
        (SPEC, {"ffn_width": 49}),
        (replace(SPEC, ffn_kind="swiglu"), {"ffn_width": 49}),
        (SPEC, {"width": 64, "heads": 8}),
        (SPEC, {**WIDER}),
        (SPEC, {"tied": False, **WIDER}),
        (SPEC, {"width": 64, "heads": 4}),
        (SPEC, {"width": 96, "heads": 4}),
        (SPEC, {"width": 64, "heads": 8, "kv_heads": 8}),
        (SPEC, {"kv_heads": 4}),
        (replace(SPEC, position="none"), {"position": "learned", "width": 36, "heads": 4}),
        (LAYERNORM, {"width": 96, "heads": 12, "kv_heads": 4}),
        (LAYERNORM, {"tied": False, **WIDER}),
        (UNTIED, WIDER),
        (UNTIED, {"width": 64, "heads": 8, "ffn_width": 100, "depth": 3}),
        (SPEC, {"dropout": 0.5}),
    ],
    ids=str,
)
def test_growth_along_every_axis_is_exact(old, change):
    found, worst = grown(old, change)
    assert found.kind == "exact"
    assert worst <= 1e-5


@pytest.mark.parametrize(
    ("old", "change", "reason"),
    [
        (LAYERNORM, WIDER, "width: 48 is no multiple of the parent's 32"),
        (SPEC, {"width": 48, "heads": 4}, "head_size: 12 is no multiple of the parent's 8"),
    ],
)
def test_where_no_map_is_exact_the_child_says_so_and_is_near(old, change, reason):
    found, worst = grown(old, change)
    assert found.kind == "closest"
    assert found.reasons[0].startswith(reason)
    assert 1e-5 < worst < 0.7


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": 1}, "depth: 1, the parent has 2"),
        ({"width": 16, "heads": 2}, "width: 16, the parent has 32"),
        ({"ffn_width": 32}, "ffn_width: 32, the parent has 48"),
        ({"heads": 2}, "heads: 2 with 2 of keys and values, no room for the parent's 4 with 2"),
        ({"kv_heads": 1}, "heads: 4 with 1 of keys and values, no room for the parent's 4 with 2"),
        ({"ffn_kind": "swiglu"}, "ffn_kind: swiglu, the parent has gelu"),
        ({"norm": "layernorm"}, "norm: layernorm, the parent has rmsnorm"),
        ({"position": "learned"}, "position: learned, the parent has rotary"),
        ({"position": "none"}, "position: none, the parent has rotary"),
    ],
)
def test_a_child_that_lacks_something_of_its_parent_says_what(change, reason):
    found, _ = grown(SPEC, change)
    assert found.kind == "partial"
    assert reason in found.reasons


def test_queries_that_begin_to_turn_are_not_the_parents():
    old = replace(SPEC, position="none")
    assert relation(TRANSFORMERS, old, SPEC).reasons == (
        "position: rotary, the parent's queries and keys don't turn",
    )


def test_a_readout_of_its_own_is_lost_where_the_child_reads_with_its_embedding():
    found, worst = grown(UNTIED, {"tied": True})
    assert found.reasons == ("tied: True, the parent reads with weights of its own",)
    assert worst > 0.1


def test_tied_matters_only_where_a_head_predicts_the_vocabulary():
    alone = replace(TRANSFORMERS, heads=TRANSFORMERS.heads[1:])
    assert relation(alone, UNTIED, replace(LAYERNORM, **WIDER)).kind == "exact"
    assert difference_of(alone, UNTIED, replace(LAYERNORM, **WIDER), 0) <= 1e-5


@pytest.mark.parametrize(
    ("heads", "kv_heads", "queries", "keys"),
    [
        (4, 2, (0, 1, 2, 3), (0, 1)),
        (6, 2, (0, 1, -1, 2, 3, -1), (0, 1)),
        (4, 4, (0, 1, 2, 3), (0, 0, 1, 1)),
        (6, 3, (0, 1, 2, 3, -1, -1), (0, 1, -1)),
        (4, 1, (0, 1, -1, -1), (0,)),
        (9, 3, (0, 1, -1, 2, 3, -1, -1, -1, -1), (0, 1, -1)),
    ],
)
def test_query_heads_stay_with_the_keys_and_values_that_serve_them(heads, kv_heads, queries, keys):
    new = replace(SPEC, width=heads * 8, heads=heads, kv_heads=kv_heads)
    assert place_heads(SPEC, new) == (queries, keys)


def test_the_pairs_of_a_rotary_head_go_where_their_frequencies_are():
    assert place_turns(4, 8) == (0, -1, 1, -1, 2, -1, 3, -1)
    assert place_turns(8, 4) == (0, 2, 4, 6)
    assert place_turns(8, 8) == tuple(range(8))


def test_copied_channels_are_told_apart_by_what_reads_them():
    new = replace(LAYERNORM, width=64, heads=8)
    parent = lived_in(TRANSFORMERS.build(LAYERNORM), 0)
    state = child_of(TRANSFORMERS, LAYERNORM, parent, new, 0).state_dict()
    written, read = state["embedding.weight"], state["blocks.0.ffn.up.weight"]
    assert torch.equal(written[:, :32], written[:, 32:])
    assert (read[:, :32] - read[:, 32:]).abs().mean() > 0.5 * read.abs().mean()


def test_a_branch_of_another_kind_begins_silent():
    new = replace(SPEC, ffn_kind="swiglu")
    parent = lived_in(TRANSFORMERS.build(SPEC), 0)
    state = child_of(TRANSFORMERS, SPEC, parent, new, 0).state_dict()
    assert not state["blocks.0.ffn.proj.weight"].any()
    assert state["blocks.0.ffn.up.weight"].all()
