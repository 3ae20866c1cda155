"""Spaces and specs as JSON, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsi_ray.config import parse_config
from rsi_ray.description import describe, describe_call, rebuilt
from rsi_ray.own import own_class
from rsi_ray.wiring import describe_space, space_of
from safety import Document
from search_spaces import Head, TransformerSpace
from tests.rsi_ray.champions import SPACE, SPEC

LIMITS = {"bounds": {"max_params": 1e9, "max_flops": 1e15, "max_memory": 1e12}}


@pytest.mark.parametrize("value", [SPACE, SPEC, (8, 2), {"width": 3}, 1.0, True, None, "x", ((1, 2.0), ())])
def test_what_is_described_comes_back_through_json(value: object):
    found = rebuilt(json.loads(json.dumps(describe(value))))
    assert found == value
    assert type(found) is type(value)


class Mine:
    """Made in Python."""

    def __repr__(self) -> str:
        return "Mine()"


@pytest.mark.parametrize("value", [Mine(), [1], {1: 2}, float("nan"), {1}])
def test_what_json_does_not_have_is_shown_and_does_not_come_back(value: object):
    told = describe((value,))
    assert told == [{"shown": repr(value)}]
    with pytest.raises(ValueError, match="was made in Python, and can't be rebuilt from a file"):
        rebuilt(told)


@pytest.mark.parametrize(
    ("description", "told"),
    [
        ({"class": "os:system", "fields": {"command": "touch x"}}, "'os:system', expected a dataclass"),
        ({"class": "no.such:Spec", "fields": {}}, "the module can't be imported"),
        ({"class": "search_spaces:Head", "fields": {"name": "a"}}, "missing 3 required keyword-only"),
        ({"class": "search_spaces:Head", "fields": [1]}, "expected a mapping"),
        ({"made_by": "search_spaces:Nothing", "options": {}, "given": {}}, "has no Nothing"),
    ],
)
def test_a_description_of_what_is_not_there_is_told_in_one_line(description: object, told: str):
    with pytest.raises(ValueError, match=told) as error:
        rebuilt(description)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_call_keeps_lists_of_its_file_and_gets_what_is_given_beside():
    heads = (Head(name="a", classes=2, length=3, dense=True),)
    told = describe_call("search_spaces:TransformerSpace", {"vocab": 7}, {"heads": heads, "batch_size": 2})
    assert rebuilt(json.loads(json.dumps(told))) == TransformerSpace(heads=heads, batch_size=2, vocab=7)


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "builtins:dict"])
def test_nothing_but_a_space_is_made_by_a_call_that_a_file_names(name):
    with pytest.raises(ValueError, match="expected a class of a search space"):
        rebuilt(describe_call(name, {"command": "true"}, {}))


@pytest.mark.parametrize(
    "space", [{"kind": "transformer", "widths": [32, 64]}, {"kind": "own", "options": {}}]
)
def test_the_space_of_a_file_is_described_so_that_it_comes_back(space: dict[str, object]):
    if space["kind"] == "own":
        space = {"kind": "search_spaces:TransformerSpace", "options": {"vocab": 256}}
    config = parse_config(Document(source="x", data={"space": space, "limits": LIMITS}), folder=Path())
    told = json.loads(json.dumps(describe_space(config)))
    assert rebuilt(told) == space_of(config)
    assert own_class(told.get("class") or told["made_by"]) is TransformerSpace
