"""Which of two limits is the tighter, field by field."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import Budgets, Limits, limits_from_dict, looser_fields, tightening, tightest
from safety.tightening import changed_fields, fields_of
from tests.safety.fakes import limits

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
    "bounds.max_params": (999, 1001),
    "bounds.max_flops": (9_999, 10_001),
    "bounds.max_memory": (99_999, 100_001),
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
    assert set(STEPS) == set(fields_of(BASE)) - {"bounds.max_performance", "require_approval"}


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
    )


@given(any_limits(), any_limits())
def test_the_tightest_of_two_is_looser_than_neither_and_the_same_either_way(one, other):
    both = tightest(one, other)
    assert both.digest == tightest(other, one).digest
    assert looser_fields(one, both) == looser_fields(other, both) == ()
    assert tightest(both, one).digest == both.digest


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
