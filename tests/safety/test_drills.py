import pytest

from safety import LedgerError, audit
from safety.drills import Canary, missed
from tests.safety.fakes import kinds, limits

FAST = Canary(node="10.0.0.1", kind="ordinary", latency_ms=2000)
SLOW = Canary(node="10.0.0.2", kind="stuck", latency_ms=2001)
ALIVE = Canary(node="10.0.0.2", kind="deaf", latency_ms=None)


def test_a_drill_passes_where_every_canary_was_dead_in_time():
    assert missed([FAST, FAST], 2000) == ""


def test_a_drill_fails_by_each_canary_that_was_late_or_lives_and_by_having_none():
    assert missed([FAST, SLOW, ALIVE], 2000) == "stuck on 10.0.0.2: 2,001 ms; deaf on 10.0.0.2: not dead"
    assert missed([], 2000) == "no canary was started"


def test_a_drill_is_in_the_audit_canary_by_canary(ledger):
    assert ledger.record_drill([FAST, SLOW], 2000, by="ann") == "stuck on 10.0.0.2: 2,001 ms"
    assert kinds(ledger) == ["open_sweep", "drill", "drill", "incident"]
    assert '"latency_ms":2001,"node":"10.0.0.2","ok":false,"target_ms":2000' in ledger.audit()[2][1].detail
    assert audit.verify(ledger.audit()) is None


def test_after_a_drill_that_failed_nothing_is_opened_until_one_passes(ledger):
    ledger.record_drill([SLOW], 2000, by="ann")
    for sweep in ("s", "new"):
        with pytest.raises(LedgerError, match=r"the last kill drill missed its target \(stuck on 10.0.0.2"):
            ledger.open_sweep(sweep, limits())
    ledger.open_sweep("drill-1", limits(), is_drill=True)
    ledger.record_drill([FAST], 2000, by="ann")
    ledger.open_sweep("new", limits())


def test_a_drill_that_passed_leaves_no_incident(governor, ledger):
    assert governor.record_drill((FAST,), 2000, "ann") == ""
    assert kinds(ledger) == ["open_sweep", "drill"]
