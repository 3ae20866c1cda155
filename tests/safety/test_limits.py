import random
from types import MappingProxyType

import pytest
from pydantic import ValidationError

from safety import DocumentError, Limits, limits_from_dict, limits_from_yaml

SAFETY_CONFIG = {
    'max_generations': 10,
    'min_improvement': 0.01,
    'require_approval': True,
    'bounds': {
        'max_params': 10e9,
        'max_flops': 1e15,
        'max_memory': 100e9,
        'max_performance': {
            'reasoning': 0.95,
            'code_generation': 0.90,
            'strategic_planning': 0.85,
        }
    }
}  # fmt: skip

AS_YAML = """
require_approval: true
min_improvement: 1e-2
max_generations: 10
bounds:
  max_performance: {strategic_planning: 0.85, reasoning: 0.950, code_generation: .9}
  max_memory: 100000000000
  max_flops: 1000000e9
  max_params: 10000000000
"""


def test_the_guides_own_safety_config_is_read_unchanged():
    limits = limits_from_dict(SAFETY_CONFIG)
    assert limits.bounds.max_params == 10_000_000_000
    assert type(limits.bounds.max_params) is int
    assert limits.bounds.max_performance["code_generation"] == 0.90
    assert (limits.max_generations, limits.min_improvement, limits.require_approval) == (10, 0.01, True)


def test_what_the_guide_leaves_out_has_the_designs_defaults():
    limits = limits_from_dict({"bounds": SAFETY_CONFIG["bounds"]})
    assert limits == limits_from_dict(SAFETY_CONFIG)
    assert limits.max_improvement_rate == 0.1
    assert (limits.lease_seconds, limits.grace_seconds) == (15, 5)
    assert limits.cluster.trials is None


def test_equal_limits_from_a_file_and_a_mapping_have_one_digest(tmp_path):
    path = tmp_path / "limits.yaml"
    path.write_text(AS_YAML)
    assert limits_from_yaml(path).digest == limits_from_dict(SAFETY_CONFIG).digest


def test_the_digest_does_not_depend_on_any_order():
    rng = random.Random(0)
    digests = set()
    for _ in range(20):
        digests.add(limits_from_dict(shuffled(SAFETY_CONFIG, rng)).digest)
    assert len(digests) == 1


def shuffled(mapping, rng):
    items = [
        (key, shuffled(value, rng) if isinstance(value, dict) else value) for key, value in mapping.items()
    ]
    rng.shuffle(items)
    return dict(items)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_generations", 11), ("min_improvement", 0.02), ("require_approval", False), ("grace_seconds", 6)],
)
def test_any_other_value_has_another_digest(field, value):
    assert limits_from_dict({**SAFETY_CONFIG, field: value}).digest != limits_from_dict(SAFETY_CONFIG).digest


def test_the_canonical_form_is_the_same_limits_again():
    limits = limits_from_dict(SAFETY_CONFIG)
    assert Limits.model_validate_json(limits.canonical) == limits


def test_a_mapping_that_is_no_dict_is_read_too():
    assert limits_from_dict(MappingProxyType(SAFETY_CONFIG)) == limits_from_dict(SAFETY_CONFIG)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "safety_config: bounds: missing, and required"),
        ({"bounds": {}}, "safety_config: bounds.max_params: missing, and required"),
        ({"bounds": None}, "safety_config: bounds: expected a mapping, found None"),
        ([], "safety_config: expected a mapping, found []"),
        ({1: 2, **SAFETY_CONFIG}, "safety_config: [1]: expected text as key, found 1"),
        (
            {**SAFETY_CONFIG, "cluster": {"trials": -1}},
            "safety_config: cluster.trials: expected a whole number from 0 to 2^62, found -1",
        ),
        (
            {**SAFETY_CONFIG, "cluster": {"trails": 1}},
            "safety_config: cluster.trails: unknown key",
        ),
        (
            {**SAFETY_CONFIG, "max_improvement_rate": float("nan")},
            "safety_config: max_improvement_rate: expected a finite number, found nan",
        ),
        (
            {**SAFETY_CONFIG, "bounds": {**SAFETY_CONFIG["bounds"], "max_performance": {"reasoning": 1.01}}},
            "safety_config: bounds.max_performance.reasoning: expected a number up to 1.0, found 1.01",
        ),
        (
            {**SAFETY_CONFIG, "lease_seconds": True},
            "safety_config: lease_seconds: expected a whole number, found True",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_refused_by_its_name(config, message):
    with pytest.raises(DocumentError) as caught:
        limits_from_dict(config)
    assert str(caught.value) == message


def test_limits_can_not_be_changed():
    with pytest.raises(ValidationError):
        limits_from_dict(SAFETY_CONFIG).max_generations = 1000
