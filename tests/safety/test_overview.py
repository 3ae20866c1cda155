from safety import Allow, Deny, Governor, Ledger, Report, audit
from safety.drills import Canary, Drill
from safety.identity import identity_in
from tests.safety.fakes import kinds, limits, request


def test_an_empty_ledger_has_nothing_to_show(tmp_path, clock):
    ledger = Ledger(f"sqlite:///{tmp_path}/empty.db", clock.clock())
    found = ledger.overview()
    ledger.close()
    assert (found.killed, found.drill, found.version) == (None, None, None)
    assert (list(found.sweeps), found.closed, list(found.budgets)) == ([], 0, [])


def test_sweeps_that_are_not_closed_are_shown_with_their_leases_and_budgets(ledger):
    for name in ("f", "c"):
        ledger.open_sweep(name, limits(), lineage="line")
    ledger.freeze("f", "too good")
    ledger.close_sweep("c", {})
    for key in ("s/1", "s/2"):
        assert ledger.reserve(request(key)) == Allow()
    ledger.activate("s/1", "d1", "7@host")
    found = ledger.overview()
    frozen, running = found.sweeps
    assert (frozen.sweep.name, frozen.sweep.state, frozen.sweep.reason) == ("f", "frozen", "too good")
    assert (frozen.sweep.lineage, list(frozen.leases), frozen.holders) == ("line", [], frozenset())
    assert [lease.state for lease in running.leases] == ["active", "reserved"]
    assert running.holders == {"7@host"}
    assert {budget.scope for budget in running.budgets} == {"sweep:s"}
    assert found.closed == 1
    cluster = {budget.resource: budget for budget in found.budgets}
    assert {budget.scope for budget in found.budgets} == {"cluster"}
    assert (cluster["trials"].held, cluster["trials"].target) == (2, 10)


def test_the_switch_the_latest_drill_and_the_latest_limits_are_shown(ledger, tmp_path, clock):
    identity = identity_in(tmp_path)
    for most in (9, 8):
        ledger.tighten(limits(sweep={"trials": most}), "ann", identity)
    canary = Canary(node="n", kind="deaf", latency_ms=5000)
    ledger.record_drill([canary], 9000, "bob")
    ledger.record_drill([canary], 2000, "ann")
    ledger.kill("fire", "eve")
    found = ledger.overview()
    assert (found.killed.reason, found.killed.by) == ("fire", "eve")
    assert found.drill == Drill(at_ms=clock.wall, target_ms=2000, missed="deaf on n: 5,000 ms", by="ann")
    assert (found.version.number, found.version.is_authentic) == (2, True)
    assert [running.sweep.state for running in found.sweeps] == ["killed"]


def test_what_has_come_near_its_ceiling_is_shown(ledger):
    ledger.reserve(request("s/1"))
    grant = ledger.activate("s/1", "d1", "w1")
    usage = grant.used(reports=1, elapsed_ms=1)
    Governor(ledger).report("s/1", Report(score=0.5, domains={"reasoning": 0.91}, usage=usage))
    (near,) = ledger.overview().sweeps[0].near
    assert (near.domain, near.score, near.level) == ("reasoning", 0.91, 95)


def test_an_incident_of_no_sweep_is_recorded_once(ledger):
    denial = Deny("ungoverned", "why")
    assert ledger.note_once("a1", denial)
    assert not ledger.note_once("a1", denial)
    assert ledger.note_once("a2", denial)
    assert ledger.note_once("a1", Deny("another", "why"))
    assert kinds(ledger).count("incident") == 3
    assert audit.verify(ledger.audit()) is None
    (entry, *_) = [entry for _, entry, _ in ledger.audit() if entry.kind == "incident"]
    assert (entry.sweep, entry.key, entry.rule, entry.detail) == ("", "a1", "ungoverned", '{"reason":"why"}')
