"""Limits that become tighter while sweeps run, in the ledger."""

import json
from dataclasses import replace

import pytest

from safety import Allow, Deny, Hold, LeaseLost, Ledger, LooserLimits, Report, Usage
from safety.identity import identity_in
from tests.safety.fakes import GFLOP, amounts, claim, kinds, limits, measured, request


def tighter(**bounds):
    """Limits with the bounds of the sweep `s`, but for some."""
    base = limits()
    return base.model_copy(update={"bounds": base.bounds.model_copy(update=bounds)})


def details(ledger, kind):
    return [json.loads(entry.detail) for _, entry, _ in ledger.audit() if entry.kind == kind]


def begun(ledger, key="s/1", **changed):
    assert ledger.reserve(request(key, **changed)) == Allow()
    return ledger.activate(key, "d1", "w1")


# --- versions


def test_a_version_is_numbered_hashed_signed_and_in_the_audit(ledger, tmp_path, clock):
    identity = identity_in(tmp_path)
    wanted = tighter(max_params=500)
    version = ledger.tighten(wanted, "ann", identity)
    assert ledger.versions() == [version]
    assert (version.number, version.digest, version.previous) == (1, wanted.digest, "")
    assert (version.by, version.at_ms, version.public) == ("ann", clock.wall, identity.public)
    assert version.is_authentic
    (told,) = details(ledger, "tighten")
    assert (told["version"], told["policy"], told["signature"]) == (1, wanted.digest, version.signature)


def test_the_next_version_names_the_one_before_and_what_it_changed(ledger):
    first = ledger.tighten(tighter(max_params=500), "ann")
    second = ledger.tighten(tighter(max_params=400), "bob")
    assert (second.number, second.previous) == (2, first.digest)
    assert details(ledger, "tighten")[-1]["fields"] == ["bounds.max_params"]
    with pytest.raises(LooserLimits, match="450 is asked for and 400 is in force"):
        ledger.tighten(tighter(max_params=450), "ann")


def test_the_same_limits_again_are_the_same_version(ledger):
    first = ledger.tighten(tighter(max_params=500), "ann")
    assert ledger.tighten(tighter(max_params=500), "bob") == first
    assert kinds(ledger).count("tighten") == 1


@pytest.mark.parametrize(
    "change",
    [{"by": "bob"}, {"number": 2}, {"at_ms": 1}, {"limits": "{}"}, {"previous": "x"}, {"signature": "zz"}],
)
def test_a_version_that_was_changed_is_not_authentic(ledger, tmp_path, change):
    version = ledger.tighten(tighter(max_params=500), "ann", identity_in(tmp_path))
    assert not replace(version, **change).is_authentic


def test_a_version_that_nobody_signed_is_not_authentic(ledger):
    assert not ledger.tighten(tighter(max_params=500), "ann").is_authentic


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            tighter(max_params=500),
            tighter(max_params=501),
            "bounds.max_params: 501 is asked for and 500 is in force",
        ),
        (limits(), limits(lease_seconds=16), "lease_seconds: 16 is asked for and 15 is in force"),
        (
            limits(cluster={"trials": 5}),
            limits(),
            "cluster.trials: no limit is asked for and 5 is in force",
        ),
        (
            limits(),
            tighter(max_performance={}),
            "bounds.max_performance.reasoning: no ceiling is asked for and 0.95 is in force",
        ),
    ],
)
def test_a_looser_version_is_refused_by_its_first_looser_field_and_changes_nothing(
    ledger, first, second, message
):
    ledger.tighten(first, "ann")
    before = ledger.versions(), ledger.audit(), ledger.budgets("s")
    with pytest.raises(LooserLimits) as caught:
        ledger.tighten(second, "ann")
    assert str(caught.value) == (
        f"{message}; loosening takes an approval: ask for it with `rsi-ray limits loosen`"
    )
    assert (ledger.versions(), ledger.audit(), ledger.budgets("s")) == before


def test_a_cap_over_the_clusters_is_refused_in_the_first_version_too(ledger):
    with pytest.raises(LooserLimits, match="cluster budget trials: 11 is asked for and 10 is in force"):
        ledger.tighten(limits(cluster={"trials": 11}), "ann")
    assert ledger.versions() == []


def test_a_cap_that_a_sweep_has_lowered_keeps_no_later_version_and_no_later_sweep_out(ledger):
    ledger.tighten(limits(cluster={"trials": 10}), "ann")
    ledger.open_sweep("t", limits(cluster={"trials": 4}))
    ledger.close_sweep("t", {})
    ledger.tighten(limits(cluster={"trials": 10}, max_generations=2), "ann")
    ledger.open_sweep("u", limits())
    with pytest.raises(LooserLimits, match="cluster budget trials: 6 is asked for and 4 is in force"):
        ledger.open_sweep("v", limits(cluster={"trials": 6}))
    assert next(b.target for b in ledger.budgets("u") if b.resource == "trials" and b.scope == "cluster") == 4


# --- what they bind


def test_a_running_trial_over_the_new_ceiling_is_renewed_no_more(ledger):
    over, under = begun(ledger, "s/1"), begun(ledger, "s/2", params=50)
    ledger.tighten(tighter(max_params=99), "ann")
    with pytest.raises(
        LeaseLost, match="s/1: the lease is revoked: 100 parameters is over the ceiling of 99"
    ):
        ledger.renew(over.lease, over.fence)
    assert ledger.renew(under.lease, under.fence) == 15_000
    entry = ledger.audit()[-1][1]
    assert (entry.kind, entry.key, entry.rule) == ("revoke", "s/1", "max_params")
    ledger.settle(over.lease, over.fence, Usage(train_flops=2 * GFLOP, reports=1, wall_ms=1))
    assert amounts(ledger, "train_gflop") == (10, 2, 0)


def test_exactly_at_the_new_ceiling_a_trial_goes_on(ledger):
    grant = begun(ledger)
    ledger.tighten(tighter(max_params=100), "ann")
    assert ledger.renew(grant.lease, grant.fence) == 15_000


def test_what_was_reserved_over_the_new_ceiling_never_begins(ledger):
    ledger.reserve(request())
    ledger.tighten(tighter(max_memory=399), "ann")
    assert ledger.lease("s/1").state == "void"
    with pytest.raises(LeaseLost):
        ledger.activate("s/1", "d1", "w1")


def test_admissions_reports_and_terms_of_every_sweep_are_bound_at_once(ledger, governor):
    ledger.open_sweep("t", limits())
    grant = begun(ledger)
    ledger.tighten(
        limits(lease_seconds=4).model_copy(update={"bounds": tighter(max_params=150).bounds}), "ann"
    )
    assert governor.admit(request("t/1", sweep="t", params=151)).rule == "max_params"
    assert ledger.renew(grant.lease, grant.fence) == 4_000
    ledger.tighten(
        limits(lease_seconds=4).model_copy(
            update={"bounds": tighter(max_params=150, max_performance={"reasoning": 0.5}).bounds}
        ),
        "ann",
    )
    assert isinstance(governor.report("s/1", Report(score=0.5, domains={"reasoning": 0.51})), Deny)


def test_budgets_of_the_cluster_and_of_each_sweep_are_tightened(ledger):
    begun(ledger)
    ledger.tighten(limits(cluster={"trials": 3}, sweep={"trials": 2}), "ann")
    ledger.open_sweep("t", limits())
    assert ledger.reserve(request("s/2")) == Allow()
    assert isinstance(ledger.reserve(request("s/3")), Hold)
    assert ledger.reserve(request("t/1", sweep="t")) == Allow()
    assert ledger.reserve(request("t/2", sweep="t")).reason.startswith("cluster budget trials")


def test_a_sweeps_own_limits_hold_where_they_are_tighter(ledger):
    ledger.tighten(tighter(max_params=10**6), "ann")
    assert ledger.sweep("s").limits.bounds.max_params == 1000


def test_a_sweep_that_is_opened_later_is_bound_too_and_the_audit_names_what_it_asked_beyond(ledger):
    ledger.tighten(tighter(max_params=500), "ann")
    in_force = ledger.open_sweep("t", limits())
    assert in_force == ledger.sweep("t").limits
    assert in_force.bounds.max_params == 500
    (told,) = details(ledger, "looser_limits")
    assert told == {"asked": limits().digest, "policy": in_force.digest, "fields": ["bounds.max_params"]}


def test_versions_outlive_a_restart(ledger, url, clock):
    ledger.tighten(tighter(max_params=99), "ann")
    ledger.close()
    again = Ledger(url, clock.restart())
    assert again.sweep("s").limits.bounds.max_params == 99
    again.close()


# --- a sweep that is gone on with, under other limits


@pytest.fixture
def resumed(ledger):
    """A sweep `r` under limits that others may differ from."""
    ledger.open_sweep("r", limits(max_generations=5))
    return ledger


def test_tighter_limits_bind_a_sweep_that_is_gone_on_with_and_its_running_trials(resumed):
    grant = begun(resumed, "r/1", sweep="r")
    wanted = tighter(max_params=99)
    in_force = resumed.open_sweep("r", wanted.model_copy(update={"max_generations": 5}))
    assert (in_force.bounds.max_params, resumed.sweep("r").limits) == (99, in_force)
    with pytest.raises(LeaseLost, match="revoked"):
        resumed.renew(grant.lease, grant.fence)
    assert details(resumed, "tighten")[-1]["fields"] == ["bounds.max_params"]
    assert details(resumed, "looser_limits") == []


def test_looser_limits_leave_the_ledgers_in_force_and_are_in_the_audit(resumed):
    in_force = resumed.open_sweep("r", limits(max_generations=6))
    assert in_force.max_generations == resumed.sweep("r").limits.max_generations == 5
    assert details(resumed, "looser_limits")[-1]["fields"] == ["max_generations"]
    assert "tighten" not in kinds(resumed)


def test_limits_that_are_both_bind_where_they_are_tighter_alone(resumed):
    in_force = resumed.open_sweep("r", limits(max_generations=9, sweep={"trials": 1}))
    assert (in_force.max_generations, in_force.sweep.trials) == (5, 1)
    assert resumed.reserve(request("r/1", sweep="r")) == Allow()
    assert resumed.reserve(request("r/2", sweep="r")).rule == "budget.trials"
    assert details(resumed, "tighten")[-1]["fields"] == ["sweep.trials"]
    assert details(resumed, "looser_limits")[-1]["fields"] == ["max_generations"]


def test_a_sweep_that_is_gone_on_with_keeps_a_cap_that_was_tightened_meanwhile(ledger):
    own = limits(cluster={"trials": 10})
    ledger.open_sweep("r", own)
    ledger.open_sweep("t", limits(cluster={"trials": 2}))
    assert ledger.open_sweep("r", own) == own
    assert {b.target for b in ledger.budgets("r") if (b.scope, b.resource) == ("cluster", "trials")} == {2}


def test_the_same_limits_again_change_nothing(resumed):
    resumed.open_sweep("r", limits(max_generations=5))
    assert not {"tighten", "looser_limits"} & set(kinds(resumed))


def test_limits_tightened_by_both_ways_hold_together(resumed, governor):
    resumed.tighten(tighter(max_params=500), "ann")
    resumed.open_sweep("r", limits(max_generations=4))
    bound = resumed.sweep("r").limits
    assert (bound.bounds.max_params, bound.max_generations) == (500, 4)
    assert governor.open_sweep("r", limits()) == bound
    assert governor.admit(request("r/1", sweep="r")) == Allow()
    assert governor.activate("r/1", "d1", "w1", measured(claim())).claim == claim()
