"""Which of two limits is the tighter, field by field."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety import Approval, Budgets, Limits, limits_from_dict, looser_fields, tightening, tightest
from safety.tightening import changed_fields, fields_of
from tests.safety.fakes import limits

# an example is of several limits
HALF = settings.default.max_examples // 2

BASE = limits(cluster={"trials": 10}, sweep={"gpu_seconds": 5})
# of each field, one value tighter than the base's and one looser
STEPS = {
    "max_generations": (9, 11),
    "min_improvement": (0.02, 0.005),
    "max_improvement_rate": (0.05, 0.2),
    "improvement_window_hours": (48, 12),
    "runaway_factor": (1.2, 2.0),
    "runaway_length": (2, 4),
    "lease_seconds": (14, 16),
    "grace_seconds": (4, 6),
    "on_excess": ("shutdown", "throttle"),
    "approval.hours": (12, 48),
    "approval.proposer_may_approve": (False, True),
    "bounds.max_params": (999, 1001),
    "bounds.max_flops": (9_999, 10_001),
    "bounds.max_memory": (99_999, 100_001),
    "bounds.max_train_flops": (1, None),
    "cluster.trials": (9, 11),
    "cluster.train_flops": (1, None),
    "cluster.concurrent_params": (1, None),
    "cluster.gpu_seconds": (1, None),
    "cluster.wall_seconds": (1, None),
    "sweep.trials": (1, None),
    "sweep.train_flops": (1, None),
    "sweep.concurrent_params": (1, None),
    "sweep.gpu_seconds": (4, None),
    "sweep.wall_seconds": (1, None),
}


def changed(name, value, of=BASE):
    section, _, field = name.rpartition(".")
    if not section:
        return of.model_copy(update={name: value})
    return of.model_copy(update={section: getattr(of, section).model_copy(update={field: value})})


def with_ceilings(**ceilings):
    return changed("bounds.max_performance", ceilings)


def test_every_field_of_the_limits_has_a_tighter_direction():
    assert set(tightening.TIGHTER) == set(fields_of(BASE))
    others = {"bounds.max_performance", "require_approval", "approval.approvers", "approval.quorum"}
    assert set(STEPS) == set(fields_of(BASE)) - others


@pytest.mark.parametrize("name", STEPS)
def test_a_tighter_value_holds_and_a_looser_one_is_named(name):
    tighter, looser = (changed(name, value) for value in STEPS[name])
    assert looser_fields(BASE, tighter) == ()
    assert tightest(BASE, tighter) == tightest(tighter, BASE) == tighter
    if fields_of(BASE)[name] != fields_of(looser)[name]:
        assert looser_fields(BASE, looser) == (name,)
        assert tightest(BASE, looser) == tightest(looser, BASE) == BASE


def test_a_budget_that_is_named_can_not_be_left_out_again():
    assert looser_fields(changed("cluster.wall_seconds", 3), BASE) == ("cluster.wall_seconds",)


def test_an_approval_may_be_asked_for_and_never_done_without():
    without = BASE.model_copy(update={"require_approval": False})
    assert looser_fields(BASE, without) == ("require_approval",)
    assert looser_fields(without, BASE) == ()
    assert tightest(without, BASE).require_approval


def test_a_domain_may_be_added_and_lowered_and_neither_raised_nor_taken_out():
    base = with_ceilings(reasoning=0.95, code=0.9)
    assert looser_fields(base, with_ceilings(reasoning=0.9, code=0.9, planning=0.5)) == ()
    assert looser_fields(base, with_ceilings(reasoning=0.96, code=0.9)) == (
        "bounds.max_performance.reasoning",
    )
    assert looser_fields(base, with_ceilings(reasoning=0.95)) == ("bounds.max_performance.code",)
    both = tightest(base, with_ceilings(reasoning=1.0, planning=0.5)).bounds.max_performance
    assert both == {"reasoning": 0.95, "code": 0.9, "planning": 0.5}


def named(*names, quorum=1):
    """Limits that name approvers; the key of each is made of its name."""
    keys = {name: name[0].encode().hex() * 32 for name in names}
    return BASE.model_copy(update={"approval": Approval(approvers=keys, quorum=quorum)})


def test_an_approver_may_be_taken_out_and_none_added_exchanged_or_all_of_them_left_out():
    base = named("ann", "bob")
    assert looser_fields(base, named("ann")) == looser_fields(BASE, base) == ()
    for other in (named("ann", "bob", "eve"), named("ann", "eve"), BASE, named("bob", "a")):
        assert looser_fields(base, other) == ("approval.approvers",)
    assert tightest(named("ann", "bob"), named("bob", "eve")).approval == named("bob").approval
    exchanged = base.approval.model_copy(update={"approvers": {"ann": "0" * 64}})
    assert tightest(base, base.model_copy(update={"approval": exchanged})).approval.keys == {}


def test_a_quorum_may_be_raised_and_not_lowered():
    one, both = named("ann", "bob"), named("ann", "bob", quorum=2)
    assert looser_fields(one, both) == ()
    assert looser_fields(both, one) == ("approval.quorum",)
    assert tightest(one, both) == tightest(both, one) == both


def test_the_tightest_of_two_may_be_out_of_reach_and_still_knows_that_approvers_are_named():
    both = tightest(named("ann", "bob", quorum=2), named("bob", "eve", quorum=2)).approval
    assert (list(both.keys), both.is_named, both.is_reachable) == (["bob"], True, False)
    nobody = tightest(named("ann"), named("bob")).approval
    assert (nobody.keys, nobody.is_named, nobody.is_reachable) == ({}, True, False)
    assert (BASE.approval.is_named, BASE.approval.is_reachable) == (False, True)


def test_a_field_that_knows_no_tighter_can_not_be_changed(monkeypatch):
    monkeypatch.delitem(tightening.TIGHTER, "max_generations")
    lower = BASE.model_copy(update={"max_generations": 1})
    assert looser_fields(BASE, lower) == ("max_generations",)
    assert tightest(BASE, lower) == BASE


def test_several_looser_fields_are_named_in_the_order_of_the_file():
    loose = changed("bounds.max_params", 2000, changed("max_generations", 20))
    assert looser_fields(BASE, changed("lease_seconds", 1, loose)) == ("max_generations", "bounds.max_params")
    assert changed_fields(BASE, loose) == ("max_generations", "bounds.max_params")


@st.composite
def any_limits(draw):
    amount = st.none() | st.integers(0, 3)
    budgets = st.builds(Budgets, trials=amount, train_flops=amount)
    return Limits(
        bounds={
            "max_params": draw(st.integers(1, 3)),
            "max_flops": 1,
            "max_memory": 1,
            "max_performance": draw(st.dictionaries(st.sampled_from("ab"), st.sampled_from([0.1, 0.5]))),
        },
        cluster=draw(budgets),
        sweep=draw(budgets),
        max_generations=draw(st.integers(1, 2)),
        require_approval=draw(st.booleans()),
        on_excess=draw(st.sampled_from(["throttle", "hold", "shutdown"])),
        approval=draw(approvals()),
    )


def approvals():
    keys = {name: name.encode().hex() * 32 for name in "ab"}
    sets = st.none() | st.sampled_from([("a",), ("b",), ("a", "b")])
    return sets.flatmap(
        lambda names: st.builds(
            Approval,
            approvers=st.just(names and {name: keys[name] for name in names}),
            quorum=st.integers(1, len(names or "1")),
            hours=st.integers(1, 2),
        )
    )


@settings(max_examples=HALF)
@given(any_limits(), any_limits())
def test_the_tightest_of_two_is_looser_than_neither_and_the_same_either_way(one, other):
    both = tightest(one, other)
    assert both.digest == tightest(other, one).digest
    assert looser_fields(one, both) == looser_fields(other, both) == ()
    assert tightest(both, one).digest == both.digest


@settings(max_examples=HALF)
@given(any_limits(), any_limits(), any_limits())
def test_what_is_no_looser_than_the_tighter_is_no_looser_than_either(one, other, third):
    if not looser_fields(tightest(one, other), third):
        assert not looser_fields(one, third)
        assert not looser_fields(other, third)


def test_the_guides_limits_are_no_looser_than_themselves():
    guide = limits_from_dict({"bounds": {"max_params": 10e9, "max_flops": 1e15, "max_memory": 100e9}})
    assert looser_fields(guide, guide) == ()
    assert looser_fields(guide, changed("max_improvement_rate", math.nextafter(0.1, 1), guide)) == (
        "max_improvement_rate",
    )
