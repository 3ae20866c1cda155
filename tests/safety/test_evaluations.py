"""What an evaluator found is in the ledger, under its own lease; champions rest on nothing else."""

from dataclasses import replace

import pytest

from safety import Allow, Champion, Governor, LeaseLost, LedgerError, Usage, audit
from safety.evaluations import Evaluated, key_of
from tests.safety.fakes import limits, request
from tests.safety.test_ledger import begun

FOUND = Evaluated(weights="w" * 64, evidence="e" * 64, record="r" * 64, score=1.01)
CHAMPION = Champion(artifact="a1", parent="", generation=1, evidence=FOUND.evidence, train_gflop=1)
KEY = key_of("s", FOUND.weights)


@pytest.fixture
def line(ledger):
    """A ledger with the sweep `p` of the lineage `family`, whose promotions nobody approves."""
    ledger.open_sweep("p", limits(require_approval=False), "family")
    return ledger


def attest(ledger, found=FOUND, sweep="p"):
    key = key_of(sweep, found.weights)
    assert ledger.reserve(request(key, sweep=sweep)) == Allow()
    grant = ledger.activate(key, "d1", "w1")
    Governor(ledger).attest(grant.lease, grant.fence, found)
    ledger.settle(grant.lease, grant.fence, Usage())


def promote(ledger, champion=CHAMPION, new=FOUND.score, key="p/1"):
    return ledger.promote("p", key, 1.0, new, champion=champion)


def test_what_is_found_is_known_to_its_lineage_and_in_the_audit(line):
    attest(line)
    governor = Governor(line)
    assert governor.is_attested("p", FOUND.record)
    assert not governor.is_attested("p", "x" * 64)
    assert not governor.is_attested("s", FOUND.record)
    (told,) = [entry for _, entry, _ in line.audit() if entry.kind == "evaluate"]
    assert (told.sweep, told.key) == ("p", key_of("p", FOUND.weights))
    expected = {"weights": FOUND.weights, "evidence": FOUND.evidence, "record": FOUND.record, "score": 1.01}
    assert audit.told(told) == {"lineage": "family", **expected}


def test_a_sweep_that_is_not_in_the_ledger_has_attested_nothing(ledger):
    with pytest.raises(LedgerError, match="not in the ledger"):
        ledger.is_attested("nobody", FOUND.record)


def test_the_same_twice_is_once(ledger):
    grant = begun(ledger, KEY)
    for _ in range(2):
        ledger.attest(grant.lease, grant.fence, FOUND)
    assert [entry.kind for _, entry, _ in ledger.audit()].count("evaluate") == 1


@pytest.mark.parametrize("key", ["s/1", key_of("s", "v" * 64)])
def test_a_lease_of_a_candidate_or_of_other_weights_attests_nothing(ledger, key):
    grant = begun(ledger, key)
    with pytest.raises(LeaseLost, match=r"it is active; expected the open lease of the evaluation of www"):
        ledger.attest(grant.lease, grant.fence, FOUND)
    assert not ledger.is_attested("s", FOUND.record)


def test_a_lease_that_is_over_or_another_holders_attests_nothing(ledger):
    grant = begun(ledger, KEY)
    with pytest.raises(LeaseLost, match="stale"):
        ledger.attest(grant.lease, grant.fence + 1, FOUND)
    ledger.settle(grant.lease, grant.fence, Usage())
    with pytest.raises(LeaseLost, match="it is settled"):
        ledger.attest(grant.lease, grant.fence, FOUND)


def test_a_denied_evaluation_is_attested_too(ledger):
    grant = begun(ledger, KEY)
    ledger.revoke(KEY, "max_performance.danger", "over it")
    ledger.attest(grant.lease, grant.fence, FOUND)
    assert ledger.is_attested("s", FOUND.record)


def test_a_score_that_is_no_number_is_nothing_found():
    with pytest.raises(ValueError, match="score: expected a finite number, found nan"):
        replace(FOUND, score=float("nan"))


def test_a_champion_rests_on_what_an_evaluator_of_its_lineage_found(line):
    attest(line)
    forged = replace(CHAMPION, evidence="f" * 64)
    assert promote(line, forged).reason == "no evaluator of lineage family found the evidence ffffffffffff"
    assert promote(line) == Allow()


def test_a_champions_score_is_the_evaluators(line):
    attest(line)
    denial = promote(line, new=1.02)
    assert (denial.rule, denial.reason) == (
        "evaluation",
        "the evaluator found 1.01, and 1.02 is told of eeeeeeeeeeee",
    )
    assert line.audit()[-1][1].rule == "evaluation"


def test_a_lineage_that_no_evaluator_works_for_is_not_bound(line):
    attest(line, sweep="s")
    assert promote(line, new=1.02) == Allow()
