from dataclasses import replace

import pytest

from safety import Bounds, Claim, PriceError
from safety.pricing import ENDLESS_MS, Pricing

BOUNDS = Bounds(max_params=100, max_flops=200, max_memory=300)


def pricing(cost=None, *, counted=(), trial_seconds=60, reports=None):
    return Pricing(
        bounds=BOUNDS, cost=cost, trial_seconds=trial_seconds, reports=reports, counted=frozenset(counted)
    )


def test_what_nobody_tells_is_taken_at_its_ceiling():
    claim = pricing()({})
    assert claim == Claim(
        params=100, forward_flops=200, memory_bytes=300, train_flops=0, wall_ms=60_000, reports=1
    )


def test_what_is_told_counts_and_the_rest_is_at_its_ceiling():
    claim = pricing(lambda config: {"params": config["width"], "train_flops": 1e9}, reports=7)({"width": 5})
    assert (claim.params, claim.train_flops, claim.forward_flops, claim.reports) == (5, 10**9, 200, 7)
    assert type(claim.train_flops) is int


def test_training_that_has_a_ceiling_must_be_told():
    bounds = BOUNDS.model_copy(update={"max_train_flops": 100})
    with pytest.raises(PriceError, match=r"max_train_flops is their ceiling.*tell train_flops in cost="):
        replace(pricing(), bounds=bounds)({})
    told = replace(pricing(lambda _: {"train_flops": 1e2, "ancestor_flops": 10**23}), bounds=bounds)({})
    assert (told.train_flops, told.ancestor_flops) == (100, 10**23)


def test_a_claim_is_taken_as_it_is():
    claim = Claim(params=1, forward_flops=1, memory_bytes=1, train_flops=1, wall_ms=1, reports=2)
    assert pricing(lambda config: claim, counted=["train_gflop"], reports=9)({}) is claim


def test_a_trial_without_a_time_limit_has_one_that_it_never_meets():
    assert pricing(trial_seconds=None)({}).wall_ms == ENDLESS_MS


@pytest.mark.parametrize(
    ("counted", "hint"),
    [
        ("train_gflop", "tell train_flops in cost="),
        ("wall_ms", "tell trial_seconds="),
        ("gpu_ms", "tell trial_seconds="),
    ],
)
def test_what_a_budget_counts_must_be_told(counted, hint):
    with pytest.raises(PriceError, match=f"a budget counts {counted}.*{hint}"):
        pricing(trial_seconds=None, counted=[counted])({})
    told = {"train_flops": 1, "wall_ms": 1}
    assert pricing(lambda config: told, trial_seconds=None, counted=[counted])({}).wall_ms == 1


@pytest.mark.parametrize("told", [3, None, {"parameters": 3}])
def test_what_is_no_claim_is_an_error(told):
    with pytest.raises(
        PriceError, match="cost: expected a Claim or a mapping of ancestor_flops, forward_flops"
    ):
        pricing(lambda config: told)({})


@pytest.mark.parametrize("value", [1.5, -1, "3", True, float("nan")])
def test_what_is_no_amount_is_an_error_that_names_it(value):
    with pytest.raises(PriceError, match=r"cost: params: expected a whole number .*found"):
        pricing(lambda config: {"params": value})({})
