"""A ceiling of training binds a candidate with its ancestors, whatever its driver says of them."""

from dataclasses import replace

import pytest

from safety import Allow, Champion, Deny, judge_claim
from tests.safety.fakes import GFLOP, limits, request

FIRST = Champion(artifact="a1", parent="", generation=1, evidence="e", train_gflop=40)
SECOND = Champion(artifact="a2", parent="a1", generation=2, evidence="e", train_gflop=90)


def trained(gflop, **more):
    """Limits under which so much may be trained, ancestors included."""
    plain = limits(require_approval=False, **more)
    bounds = plain.bounds.model_copy(update={"max_train_flops": gflop and gflop * GFLOP})
    return plain.model_copy(update={"bounds": bounds})


@pytest.fixture
def line(ledger):
    """A ledger with the sweep `p` of a lineage whose champion has 40 GFLOP in it; 100 are allowed."""
    ledger.open_sweep("p", trained(100), "family")
    assert promoted(ledger, FIRST) == Allow()
    return ledger


def promoted(ledger, champion, key="p/1"):
    old = 1.0 if champion is None or champion.generation == 1 else 1.01
    return ledger.promote("p", key, old, old + 0.01, champion=champion)


def asked(key="p/1", sweep="p", **amounts):
    return request(key, sweep=sweep, **{name: value * GFLOP for name, value in amounts.items()})


@pytest.mark.parametrize("method", ["reserve", "readmit"])
@pytest.mark.parametrize("told", [0, 39, 40])
def test_a_driver_that_tells_fewer_ancestors_than_the_champion_has_is_judged_by_the_champion(
    line, method, told
):
    ask = getattr(line, method)
    over = ask(asked(train_flops=61, ancestor_flops=told), judge_claim)
    assert (over.rule, over.reason) == (
        "max_train_flops",
        "101,000,000,000 FLOPs of training, ancestors' included, is over the ceiling of 100,000,000,000",
    )
    assert ask(asked("p/2", train_flops=60, ancestor_flops=told), judge_claim) == Allow()


def test_more_ancestors_than_the_ledger_knows_of_are_believed(line):
    refused = line.reserve(asked(train_flops=50, ancestor_flops=51), judge_claim)
    assert refused.rule == "max_train_flops"


def test_what_is_told_exactly_is_not_rounded_up(line):
    exact = {"train_flops": 60 * GFLOP + 5, "ancestor_flops": 40 * GFLOP - 5}
    assert line.reserve(request("p/1", sweep="p", **exact), judge_claim) == Allow()


def test_another_sweep_of_the_lineage_has_the_same_ancestors_and_one_of_another_has_none(line):
    line.open_sweep("q", trained(100), "family")
    line.open_sweep("r", trained(100), "others")
    assert line.reserve(asked("q/1", "q", train_flops=61), judge_claim).rule == "max_train_flops"
    assert line.reserve(asked("r/1", "r", train_flops=100), judge_claim) == Allow()


def test_a_champion_that_is_told_with_less_than_the_one_before_it_takes_no_training_away(line):
    assert promoted(line, replace(SECOND, train_gflop=0), "p/2") == Allow()
    assert line.reserve(asked(train_flops=61), judge_claim).rule == "max_train_flops"


def test_after_a_rollback_the_ancestors_are_those_of_the_champion_that_stands(line):
    assert promoted(line, SECOND, "p/2") == Allow()
    assert line.reserve(asked(train_flops=11), judge_claim).rule == "max_train_flops"
    line.rollback("family", "a1", "worse", "ann")
    assert line.reserve(asked("p/2", train_flops=60), judge_claim) == Allow()


@pytest.mark.parametrize("champion", [replace(SECOND, train_gflop=101), None])
def test_a_champion_over_the_ceiling_or_whose_training_nobody_tells_is_not_promoted(line, champion):
    refused = promoted(line, champion, "p/2")
    assert isinstance(refused, Deny)
    assert refused.rule == "max_train_flops"
    assert len(line.promotions("family")) == 1
    assert promoted(line, replace(SECOND, train_gflop=100), "p/3") == Allow()


def test_a_ceiling_of_another_sweep_of_the_lineage_binds_a_promotion_too(line):
    line.open_sweep("q", trained(80), "family")
    assert promoted(line, SECOND, "p/2").rule == "max_train_flops"


def test_a_lease_is_renewed_no_more_where_its_ancestors_are_over_tightened_limits(line):
    line.reserve(asked(train_flops=60), judge_claim)
    line.tighten(trained(99), "ann")
    assert line.lease("p/1").rule == "max_train_flops"


def test_without_a_ceiling_ancestors_bind_nothing(ledger):
    ledger.open_sweep("p", trained(None))
    assert promoted(ledger, replace(FIRST, train_gflop=2**62)) == Allow()
    assert ledger.reserve(asked(ancestor_flops=10**9), judge_claim) == Allow()


@pytest.mark.parametrize("amount", [-1, 2**62 + 1, 1.0, True])
def test_a_champions_training_is_an_exact_amount(amount):
    with pytest.raises(ValueError, match="train_gflop: expected a whole number from 0"):
        replace(FIRST, train_gflop=amount)
