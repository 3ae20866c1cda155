"""A report on a ledger that was driven by hand: every number in it is known beforehand."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest

from safety import Ledger, Usage, audit, history
from safety.audit import GENESIS, Entry
from safety.checkpoints import Checked, sign, verify
from safety.identity import identity_in
from safety.report import Software, report_on, share, utc
from safety.snapshot import take
from safety.unverified import Evidence
from tests.safety.fakes import GFLOP, FakeClock, claim, limits, request

SOFTWARE = Software(here={"python": "3.11"}, runs={"s": {"python": "3.12"}})
NOTHING = Evidence(
    checked=Checked(rows=0, checkpoints=0, newest=None), public="", pinned=False, places=(), elsewhere=False
)


def reported(ledger: Ledger, evidence: Evidence = NOTHING):
    with ledger.reading() as connection:
        snapshot = take(connection)
    told = history.history(ledger.audit_stream())
    return report_on(snapshot, told, evidence, SOFTWARE, url="sqlite:///x", now_ms=0)


def run(ledger: Ledger, key: str, usage: Usage | None, sweep: str = "s", **changed: int) -> None:
    """A trial that ends with this usage, or stays open."""
    ledger.reserve(request(key, sweep=sweep, **changed))
    grant = ledger.activate(key, "d1", "w1")
    if usage is not None:
        ledger.settle(grant.lease, grant.fence, usage)


def noted(ledger: Ledger, clock, kind: str, **more):
    with ledger._transaction() as connection:
        audit.note(connection, clock.clock(), kind, **more)


def found(rows, **wanted):
    return next(row for row in rows if all(row[name] == value for name, value in wanted.items()))


@pytest.fixture(scope="module")
def driven_once(tmp_path_factory):
    """Two sweeps: 12 GFLOP settled, one trial of 10 forfeited, one void, one of 10 open; the cap is 100."""
    path, clock = tmp_path_factory.mktemp("driven") / "ledger.db", FakeClock()
    ledger = Ledger(f"sqlite:///{path}", clock.clock())
    ledger.open_sweep("s", limits(cluster={"trials": 10, "train_flops": 100 * GFLOP}))
    run(ledger, "s/1", Usage(train_flops=7 * GFLOP, wall_ms=5, gpu_ms=3, reports=5))  # the arithmetic is 10
    run(ledger, "s/2", Usage(train_flops=2 * GFLOP, wall_ms=5, gpu_ms=3, reports=1))
    ledger.open_sweep("t", limits(sweep={"trials": 4}))
    run(ledger, "t/1", None, sweep="t", params=900, forward_flops=9_000)
    clock.pass_ms(10**6)
    ledger.reap()
    ledger.reserve(request("t/2", sweep="t", params=1000))
    ledger.void("t/2", "changed")
    run(ledger, "t/3", None, sweep="t")
    ledger.close()
    return path


@pytest.fixture
def driven(driven_once, tmp_path, clock):
    """That ledger, for one test."""
    shutil.copy(driven_once, tmp_path / "ledger.db")
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", clock.clock())
    yield ledger
    ledger.close()


def test_training_flops_are_one_exact_sum_over_all_sweeps(driven):
    training = reported(driven)["training"]
    assert training["train_flops"] == 22 * GFLOP
    assert training["held_flops"] == 10 * GFLOP
    assert training["gflop"] == {"budgets": 22, "leases": 22, "audit": 22}
    assert training["agree"]
    assert training["shares"] == [
        {"of": "1e23", "share": "0.00000000000022"},
        {"of": "1e25", "share": "0.0000000000000022"},
        {"of": "1e26", "share": "0.00000000000000022"},
    ]


def test_a_share_is_exact_beyond_the_digits_of_a_float(ledger):
    gflop = 10**16 + 1
    ledger.open_sweep("big", limits())
    run(ledger, "big/1", Usage(train_flops=gflop * GFLOP, reports=5), sweep="big", train_flops=10**9)
    training = reported(ledger)["training"]
    assert training["train_flops"] == gflop * GFLOP  # nearly all of it an overrun
    assert training["shares"][1]["share"] == "1.0000000000000001"
    assert training["agree"]


def test_usage_beyond_64_bits_is_summed_all_the_same(ledger):
    ledger.open_sweep("u", limits())
    run(ledger, "s/1", Usage(train_flops=2**62 * GFLOP, reports=5))
    run(ledger, "u/1", Usage(train_flops=2**62 * GFLOP, reports=5), sweep="u")
    training = reported(ledger)["training"]
    assert training["gflop"]["leases"] == training["gflop"]["audit"] == 2 * 2**62
    # the budget's own column is full: that is told
    assert not training["agree"]
    assert training["train_flops"] == 2 * 2**62 * GFLOP


def test_sums_that_were_changed_in_the_database_are_told(driven, url):
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE budgets SET spent = spent - 5 WHERE resource = 'train_gflop'")
    report = reported(driven)
    assert report["training"]["gflop"] == {"budgets": 17, "leases": 22, "audit": 22}
    assert not report["training"]["agree"]
    assert report["training"]["train_flops"] == 22 * GFLOP
    assert any(
        "summed over the budgets, the leases and the audit differ" in line for line in report["not_verified"]
    )
    assert not found(report["budgets"], scope="cluster", resource="train_gflop")["agrees"]
    assert found(report["budgets"], scope="cluster", resource="gpu_ms")["agrees"]


def test_budgets_tell_what_is_out_and_the_most_that_ever_was(driven):
    budgets = reported(driven)["budgets"]
    assert found(budgets, scope="cluster", resource="train_gflop") == {
        "scope": "cluster",
        "resource": "train_gflop",
        "cap": 100,
        "spent": 22,
        "held": 10,
        "overrun": 0,
        "share": 0.32,
        "peak": 32,
        "peak_share": 0.32,
        "agrees": True,
    }
    params = found(budgets, scope="cluster", resource="concurrent_params")
    assert (params["cap"], params["share"], params["held"], params["peak"]) == (None, None, 100, 1000)
    trials = found(budgets, scope="sweep:t", resource="trials")
    assert (trials["cap"], trials["spent"], trials["held"], trials["peak_share"]) == (4, 1, 1, 0.5)
    assert all(budget["agrees"] for budget in budgets)


def test_a_peak_stands_though_all_of_it_came_back(ledger):
    for key in ("s/1", "s/2"):
        ledger.reserve(request(key))
    for key in ("s/1", "s/2"):
        ledger.void(key, "over")
    budget = found(reported(ledger)["budgets"], scope="cluster", resource="train_gflop")
    assert (budget["spent"], budget["held"], budget["peak"], budget["peak_share"]) == (0, 0, 20, 0.2)


def test_an_overrun_is_no_part_of_what_a_budget_has_out(ledger):
    run(ledger, "s/1", Usage(train_flops=15 * GFLOP, reports=5))
    report = reported(ledger)
    budget = found(report["budgets"], scope="cluster", resource="train_gflop")
    assert (budget["spent"], budget["overrun"], budget["peak"], budget["agrees"]) == (10, 5, 10, True)
    assert report["training"]["gflop"] == {"budgets": 15, "leases": 15, "audit": 15}
    assert found(report["refusals"], kind="incident")["rule"] == "overrun"


def test_ceilings_tell_the_largest_candidate_that_was_admitted(driven):
    ceilings = reported(driven)["ceilings"]
    assert found(ceilings, sweep="s", ceiling="max_params") == {
        "sweep": "s",
        "ceiling": "max_params",
        "limit": 1000,
        "largest": 100,
        "share": 0.1,
    }
    assert found(ceilings, sweep="t", ceiling="max_params")["share"] == 1.0
    assert found(ceilings, sweep="t", ceiling="max_flops")["share"] == 0.9
    assert found(ceilings, sweep="s", ceiling="max_memory")["largest"] == claim().memory_bytes
    reasoning = found(ceilings, sweep="s", ceiling="max_performance.reasoning")
    assert (reasoning["limit"], reasoning["largest"], reasoning["share"]) == (0.95, None, None)


def test_the_ceiling_of_all_training_is_told_where_there_is_one(ledger):
    assert "max_train_flops" not in {row["ceiling"] for row in reported(ledger)["ceilings"]}
    plain = limits()
    bounds = plain.bounds.model_copy(update={"max_train_flops": 100 * GFLOP})
    ledger.open_sweep("t", plain.model_copy(update={"bounds": bounds}))
    ledger.reserve(request("t/1", sweep="t", ancestor_flops=40 * GFLOP))
    told = found(reported(ledger)["ceilings"], sweep="t", ceiling="max_train_flops")
    assert (told["limit"], told["largest"], told["share"]) == (100 * GFLOP, 50 * GFLOP, 0.5)


def test_a_sweep_that_admitted_nothing_came_near_no_ceiling(ledger):
    assert found(reported(ledger)["ceilings"], ceiling="max_params")["share"] is None


def test_a_ceiling_of_nothing_is_reached_by_anything():
    assert (share(5, 0), share(1, 4)) == (1.0, 0.25)


def test_limits_that_were_changed_in_the_database_are_told(ledger, url):
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE policies SET limits = replace(limits, '1000', '9999')")
    report = reported(ledger)
    assert list(report["policies"].values()) == [None]
    assert report["ceilings"] == []
    digest = limits(cluster={"trials": 10, "train_flops": 100 * GFLOP}).digest
    assert (
        f"The limits {digest[:12]} in the ledger are not those that its audit names"
        in report["not_verified"][1]
    )


def test_sweeps_are_listed_in_the_order_in_which_they_were_opened(driven):
    driven.open_sweep("a", limits())
    driven.open_sweep("s", limits(cluster={"trials": 10, "train_flops": 100 * GFLOP}))
    driven.freeze("t", "odd")
    report = reported(driven)
    s, t, a = report["lineage"]["sweeps"]
    assert [s["name"], t["name"], a["name"]] == ["s", "t", "a"]
    assert [event["row"] for event in s["opened"]] == [1, len(driven.audit()) - 1]
    assert s["opened"][0]["policy"] in report["policies"]
    assert report["policies"][s["opened"][0]["policy"]]["bounds"]["max_params"] == 1000
    assert (t["state"], t["reason"]) == ("frozen", "odd")
    assert (t["admitted"], t["settled"], t["forfeited"], t["void"]) == (3, 0, 1, 1)
    assert (s["train_flops"], t["train_flops"], a["train_flops"]) == (12 * GFLOP, 10 * GFLOP, 0)
    assert s["used"] == {"train_gflop": 12, "gpu_ms": 6, "wall_ms": 10}


def test_denials_are_counted_by_rule_the_most_frequent_first(ledger, governor, clock):
    governor.admit(request("s/1", params=5000))
    clock.wall += 1000
    for key in ("s/2", "s/3"):
        governor.admit(request(key, memory_bytes=10**9))
    refusals = reported(ledger)["refusals"]
    assert [(row["kind"], row["rule"], row["count"]) for row in refusals] == [
        ("deny", "max_memory", 2),
        ("deny", "max_params", 1),
    ]
    assert (refusals[1]["first"], refusals[1]["last"]) == ("2023-11-14T22:13:20.000Z",) * 2
    assert refusals[0]["first"] == "2023-11-14T22:13:21.000Z"
    assert refusals[1]["reason"] == "5,000 parameters is over the ceiling of 1,000"


def test_decisions_drills_and_promotions_are_listed_with_what_they_say(ledger, clock):
    drill = {"target": "native", "latency_ms": 900, "node": "n1", "ok": True}
    noted(ledger, clock, "drill", detail=drill)
    noted(ledger, clock, "approve", sweep="s", key="c1", detail={"by": "ann"})
    noted(ledger, clock, "reject", sweep="s", key="c2", detail={"by": "bob"})
    noted(ledger, clock, "promote", sweep="s", key="c1", detail={"old": 0.5, "new": 0.6})
    ledger.kill("fire", "ann")
    assert reported(ledger)["killed"] == {"at": "2023-11-14T22:13:20.000Z", "reason": "fire", "by": "ann"}
    ledger.unkill("out", "bob")
    report = reported(ledger)
    assert [row["detail"] for row in report["drills"]] == [drill]
    assert [(row["kind"], row["row"]) for row in report["approvals"]] == [
        ("approve", 3),
        ("reject", 4),
        ("unkill", 7),
    ]
    assert [(row["key"], row["detail"]) for row in report["lineage"]["promotions"]] == [
        ("c1", {"old": 0.5, "new": 0.6})
    ]
    assert [row["kind"] for row in report["kill_switch"]] == ["kill", "unkill"]
    assert [(row["kind"], row["at"]) for row in report["incidents"]["latest"]] == [
        ("kill", "2023-11-14T22:13:20.000Z")
    ]
    assert report["killed"] is None
    assert not any("drill" in line for line in report["not_verified"])


def test_of_very_many_incidents_the_latest_are_listed_and_all_counted(ledger, monkeypatch):
    monkeypatch.setattr(history, "MOST_INCIDENTS", 2)
    for number in range(5):
        ledger.kill(f"{number}", "ann")
    incidents = reported(ledger)["incidents"]
    assert incidents["rows"] == 5
    assert [row["detail"]["reason"] for row in incidents["latest"]] == ["3", "4"]


def test_versions_are_told_as_they_were_given(ledger):
    report = reported(ledger)
    assert report["software"] == {"here": {"python": "3.11"}, "runs": {"s": {"python": "3.12"}}}
    assert (report["ledger"]["url"], report["made_at"]) == ("sqlite:///x", "1970-01-01T00:00:00.000Z")


def test_a_report_is_plain_json(driven):
    assert json.loads(json.dumps(reported(driven))) == reported(driven)


def test_an_empty_ledger_has_a_report_too(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/empty.db")
    report = reported(ledger)
    assert (report["ledger"]["id"], report["ledger"]["rows"]) == ("", 0)
    assert report["training"]["train_flops"] == 0
    assert report["training"]["shares"][0]["share"] == "0"
    ledger.close()


# --- how the audit was checked, and what was not


def evidence_of(ledger, tmp_path, *, pinned=True, elsewhere=True):
    identity = identity_in(tmp_path / "key")
    with ledger.reading() as connection:
        newest = sign(identity, audit.head(connection), 1_700_000_000_000)
    return newest, lambda: Evidence(
        checked=verify(ledger.audit_stream(), [newest], identity.public),
        public=identity.public,
        pinned=pinned,
        places=("elsewhere",),
        elsewhere=elsewhere,
    )


def test_an_audit_that_was_checked_is_told_with_its_checkpoint(driven, tmp_path):
    newest, evidence = evidence_of(driven, tmp_path)
    told = reported(driven, evidence())["audit"]
    assert (told["whole"], told["problem"], told["bad"], told["rows"]) == (True, "", None, newest.seq)
    assert told["newest"]["at"] == "2023-11-14T22:13:20.000Z"
    assert (told["newest"]["seq"], told["newest"]["signature"]) == (newest.seq, newest.signature)
    assert (told["pinned"], told["elsewhere"], told["places"]) == (True, True, ["elsewhere"])


def test_what_is_not_verified_begins_with_what_is_broken(driven, tmp_path, url):
    _, evidence = evidence_of(driven, tmp_path)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE audit SET rule = 'x' WHERE seq = 4")
    report = reported(driven, evidence())
    assert not report["audit"]["whole"]
    assert report["audit"]["bad"] == 4
    assert report["not_verified"][0].startswith(
        "The audit is not whole, so nothing below is proven. Row 4 was"
    )


def test_doubts_are_told_as_they_are(driven, tmp_path):
    newest, evidence = evidence_of(driven, tmp_path, pinned=False, elsewhere=False)
    driven.kill("fire", "ann")
    text = "\n".join(reported(driven, evidence())["not_verified"])
    assert f"Rows after {newest.seq}, the newest that was signed, could be cut off unseen" in text
    # the lease that began is revoked, and then
    assert f"Row {newest.seq + 1} should have been signed and was not" in text
    assert "The checkpoints lie beside the ledger" in text
    assert "The key lies beside the ledger too" in text
    assert "1 leases are open" in text
    assert "No drill of the kill switch" in text
    sure = "\n".join(reported(driven, evidence_of(driven, tmp_path)[1]())["not_verified"])
    assert "beside" not in sure
    assert "should have been signed" not in sure


def test_without_a_checkpoint_the_tail_is_not_verified(ledger):
    assert reported(ledger)["not_verified"][0].startswith("No checkpoint was compared")


# --- rows that the ledger did not write


def tampered(*entries: Entry):
    return history.history((seq, entry, GENESIS) for seq, entry in enumerate(entries, start=1))


@pytest.mark.parametrize("detail", ["{}", "[]", "no", '{"claim": 1}', '{"claim": {"params": -1}}'])
def test_a_reservation_without_a_claim_holds_nothing(detail):
    told = tampered(Entry(at_ms=0, kind="reserve", sweep="s", key="s/1", detail=detail))
    assert (told.held, told.peaks, told.kinds["reserve"]) == ({}, {}, 1)


@pytest.mark.parametrize("detail", ["{}", "no", '{"used": 1}', '{"used": {"train_gflop": "9", "trials": 1}}'])
def test_an_ending_without_amounts_uses_nothing(detail):
    told = tampered(Entry(at_ms=0, kind="settle", sweep="", key="s/1", detail=detail))
    assert told.used.total() == 0


def test_an_opening_of_no_sweep_is_listed_nowhere():
    assert tampered(Entry(at_ms=0, kind="open_sweep")).sweeps == {}


def test_a_sweep_of_rows_alone_is_told_as_such(ledger, clock):
    noted(ledger, clock, "deny", sweep="gone", rule="r")
    report = reported(ledger)
    assert found(report["lineage"]["sweeps"], name="gone")["state"] == "not in the ledger"


def test_a_sweep_without_rows_has_ceilings_all_the_same(ledger, url):
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("DELETE FROM audit")
    assert found(reported(ledger)["ceilings"], ceiling="max_params")["largest"] is None


@pytest.mark.parametrize(("ms", "text"), [(0, "1970-01-01T00:00:00.000Z"), (2**62, f"{2**62} ms")])
def test_a_time_is_told_whatever_it_is(ms, text):
    assert utc(ms) == text
