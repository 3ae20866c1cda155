import functools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import Claim, Usage, request_digest
from safety.document import MAX_SIZE
from safety.lease import object_digest
from tests.safety.fakes import GFLOP, claim

FIELDS = ["params", "forward_flops", "memory_bytes", "train_flops", "wall_ms", "gpu_ms", "reports"]


@pytest.mark.parametrize(
    ("flops", "gflop"), [(0, 0), (1, 1), (GFLOP, 1), (GFLOP + 1, 2), (2**62, 4611686019)]
)
def test_gflop_are_rounded_up(flops, gflop):
    assert claim(train_flops=flops).charges()["train_gflop"] == gflop
    assert Usage(train_flops=flops).charges(claim())["train_gflop"] == gflop


def test_a_claim_charges_one_trial_its_parameters_and_its_time():
    assert claim().charges() == {
        "train_gflop": 10,
        "trials": 1,
        "concurrent_params": 100,
        "gpu_ms": 6_000,
        "wall_ms": 60_000,
    }


def test_parameters_are_held_and_never_spent():
    assert Usage().charges(claim())["concurrent_params"] == 0


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [-1, True, 1.0, 1e300, 2**62 + 1, 2**63, "12", None, math.nan])
def test_what_is_no_exact_amount_is_refused_with_its_field(field, value):
    if field == "train_flops" and type(value) is int and value > 0:
        value *= 10**9  # counted in FLOPs, held in GFLOP
    with pytest.raises(ValueError, match=f"^{field}: expected a whole number from 0 to 2\\^62.*, found "):
        claim(**{field: value})


def test_a_claim_of_no_reports_is_refused():
    with pytest.raises(ValueError, match="reports: expected at least 1"):
        claim(reports=0)


@pytest.mark.parametrize("models", [0, 6])
def test_a_claims_models_are_at_least_one_and_make_a_report_each(models):
    with pytest.raises(ValueError, match=f"models: expected 1 to as many as reports, 5, found {models}"):
        claim(models=models, reports=5)


def test_members_that_are_trained_at_a_time_hold_the_parameters_of_all_of_them():
    assert claim(members=3).charges() == {**claim().charges(), "concurrent_params": 3 * claim().params}


@pytest.mark.parametrize("members", [0, 2**62])
def test_members_are_at_least_one_and_their_parameters_an_amount(members):
    with pytest.raises(
        ValueError, match=r"^members: expected at least 1, with up to 2\^62 parameters together"
    ):
        claim(members=members)


def test_the_training_of_ancestors_is_not_charged_again():
    assert claim(ancestor_flops=10**12).charges() == claim().charges()


def test_the_largest_amounts_are_a_claim():
    amounts = {**dict.fromkeys(FIELDS, MAX_SIZE), "members": 1}
    assert Claim(**amounts).charges()["wall_ms"] == MAX_SIZE


def test_flops_told_below_the_arithmetic_are_charged_by_the_arithmetic():
    assert Usage(train_flops=1, reports=2).charges(claim())["train_gflop"] == 4


def test_flops_told_above_the_arithmetic_are_charged_as_told():
    assert Usage(train_flops=7 * GFLOP, reports=2).charges(claim())["train_gflop"] == 7


@given(st.integers(0, 2**62), st.integers(1, 1000), st.integers(0, 1000))
def test_the_arithmetic_of_a_part_is_rounded_up_to_the_next_gflop(flops, reports, made):
    charged = Usage(reports=made).charges(claim(train_flops=flops, reports=reports))["train_gflop"]
    assert (charged - 1) * GFLOP * reports < flops * made <= charged * GFLOP * reports or charged == 0


@pytest.mark.parametrize("value", [-1, math.nan, 1.5, "12", None, True, 2**93])
def test_a_usage_that_is_no_amount_is_charged_as_the_whole_claim(value):
    usage = Usage(train_flops=value, wall_ms=value, gpu_ms=value, reports=value)
    assert usage.charges(claim()) == {**claim().charges(), "concurrent_params": 0}


def test_no_usage_charges_more_than_64_bits_hold():
    usage = Usage(reports=MAX_SIZE)
    assert usage.charges(claim(train_flops=MAX_SIZE, reports=1))["train_gflop"] == MAX_SIZE


def test_a_requests_digest_is_of_its_values_and_not_of_their_order():
    assert request_digest({"a": 1, "b": [2.5, None]}) == request_digest({"b": [2.5, None], "a": 1})
    assert request_digest({"a": 1}) != request_digest({"a": 1.5})


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, object()])
def test_a_configuration_that_json_can_not_tell_has_no_digest(value):
    with pytest.raises(ValueError, match=r"JSON"):
        request_digest({"a": value})


class Opaque:
    pass


class Speaking:
    def __repr__(self):
        return "Speaking(3)"


def test_a_digest_of_objects_is_the_same_in_every_process_and_tells_them_apart():
    config = {"a": 1, "layer": dict, "made": Speaking(), "opaque": Opaque()}
    assert object_digest(config) == object_digest({**config, "opaque": Opaque(), "made": Speaking()})
    for other in ({"a": 2}, {"layer": list}, {"made": Opaque()}):
        assert object_digest({**config, **other}) != object_digest(config)


def test_a_digest_of_numbers_of_numpy_is_that_of_their_values():
    assert object_digest({"a": np.float64(0.5), "b": np.arange(2)}) == request_digest({"a": 0.5, "b": [0, 1]})


def test_an_object_that_tells_its_address_counts_by_its_type():
    assert object_digest({"f": functools.partial(print)}) == object_digest({"f": functools.partial(print)})


def test_a_digest_tells_partials_and_numbers_that_are_not_finite_apart():
    values = [math.inf, -math.inf, math.nan, np.float64("nan"), 0.0, None, *(
        functools.partial(*called) for called in ((print,), (print, 1), (print, 2), (repr, 1))
    ), functools.partial(print, end="")]  # fmt: skip
    digests = [object_digest({"a": value}) for value in values]
    assert digests[2] == digests[3]
    assert len(set(digests)) == len(values) - 1


def test_a_digest_of_a_set_is_that_of_its_members_in_any_order():
    assert object_digest({"a": {1, 2, 3}}) == object_digest({"a": frozenset([3, 2, 1])})
    assert object_digest({"a": {1, 2, 3}}) != object_digest({"a": {1, 2}})


@pytest.mark.processes
def test_a_digest_of_a_set_and_of_odd_names_is_the_same_in_every_process():
    config = "{'a': {'x', 'y', 'z', 'w', 3}, 'b': {('x', 1): 2, 3: 4}}"
    code = f"from safety.lease import object_digest; print(object_digest({config}))"
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True)
    told = {
        run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}).stdout
        for seed in "0123"
    }
    assert len(told) == 1
    assert object_digest({"a": {1, 2}}) != object_digest({"a": {1, 3}})
