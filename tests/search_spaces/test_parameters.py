"""The parameters of a spec that is there already."""

import random
from dataclasses import replace

import pytest

from search_spaces import ConvSpace, Head, ImageHead, MLPSpace, RandomTrial, TableHead, TransformerSpace
from search_spaces.given_trial import spec_from
from search_spaces.parameters import parameters_of

SPACES = [
    TransformerSpace(
        heads=(Head(name="lm", classes=256, length=8, dense=True),), batch_size=2, dropouts=(0.0, 0.1)
    ),
    ConvSpace(heads=(ImageHead(name="digits", classes=10, channels=1, height=8, width=8),), batch_size=2),
    MLPSpace(heads=(TableHead(name="rows", outputs=2, features=5),), batch_size=2),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_the_parameters_of_a_spec_suggest_it_again(space):
    for seed in range(100):
        trial = RandomTrial(random.Random(seed))
        spec = space.suggest(trial)
        assert parameters_of(space, spec) == trial.params
        assert spec_from(space, parameters_of(space, spec))[0] == spec


def test_a_spec_that_a_space_does_not_have_is_refused():
    space = SPACES[0]
    spec = space.suggest(RandomTrial(random.Random(0)))
    with pytest.raises(ValueError, match="depth: expected a whole number from 1 to 8, found 9"):
        parameters_of(space, replace(spec, depth=9))
    with pytest.raises(ValueError, match="not one of this space"):
        parameters_of(space, replace(spec, ffn_width=spec.ffn_width + 1))


def test_a_spec_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="dict: expected a spec of a space of this project"):
        parameters_of(SPACES[0], {})
