"""What differs between two architectures, in lines that people read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rsi_ray.description import describe
from rsi_ray.modification import architecture_difference, difference_line
from search_spaces.convnet import ConvSpec, ConvStage
from search_spaces.mlp import MLPSpec
from tests.rsi_ray.champions import SPEC

STAGE = ConvStage(
    depth=1, width=8, kernel_size=3, expansion=2, groups=16, squeeze_excite=True, downsample=None
)
SECOND = replace(STAGE, downsample="max")
MLP = MLPSpec(widths=(16, 32), activation="relu", norm="none", residual=False)

CASES = [
    (SPEC, SPEC, []),
    (SPEC, replace(SPEC, depth=3, ffn_width=32), ["depth: 1 -> 3", "ffn_width: 16 -> 32"]),
    (SPEC, replace(SPEC, tied=False, dropout=0.1), ["tied: True -> False", "dropout: 0.0 -> 0.1"]),
    (MLP, replace(MLP, widths=(16, 64, 64)), ["widths: (16, 32) -> (16, 64, 64)"]),
    (
        ConvSpec(stages=(STAGE, SECOND)),
        ConvSpec(stages=(STAGE, replace(SECOND, depth=2, downsample="conv"))),
        ["stages[1].depth: 1 -> 2", "stages[1].downsample: max -> conv"],
    ),
    (
        ConvSpec(stages=(STAGE,)),
        ConvSpec(stages=(STAGE, SECOND)),
        [
            "stages[1]: none -> ConvStage(depth 1, width 8, kernel_size 3, expansion 2, groups 16, "
            "squeeze_excite True, downsample max)"
        ],
    ),
    ((8, 2), (8, 4), ["architecture: (8, 2) -> (8, 4)"]),
]


@pytest.mark.parametrize(("old", "new", "lines"), CASES)
def test_each_field_that_differs_is_a_line(old: object, new: object, lines: list[str]):
    found = architecture_difference(describe(old), describe(new))
    assert list(map(str, found)) == lines
    assert all("\n" not in line for line in lines)
    if not isinstance(old, tuple):
        assert architecture_difference(old, new) == found
    back = architecture_difference(describe(new), describe(old))
    assert [(one.field, one.old, one.new) for one in back] == [(one.field, one.new, one.old) for one in found]


def test_architectures_of_different_kinds_are_one_line():
    (change,) = architecture_difference(MLP, SPEC)
    assert str(change).startswith("architecture: MLPSpec(widths (16, 32), activation relu")
    assert " -> TransformerSpec(depth 1, " in str(change)


def test_all_changes_go_into_one_line():
    line = difference_line(architecture_difference(SPEC, replace(SPEC, depth=3, tied=False)))
    assert line == "depth: 1 -> 3; tied: True -> False"
    assert difference_line(()) == "the same architecture"
