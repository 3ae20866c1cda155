"""A lineage's champions as the ledger tells of them: what was promoted, and who approved it."""

from safety import Allow, Champion, Governor
from tests.safety.approvers import answer, approval
from tests.safety.fakes import limits

FIRST = Champion(artifact="a1", parent="", generation=1, evidence="e1", train_gflop=1)
SECOND = Champion(artifact="a2", parent="a1", generation=2, evidence="e2", train_gflop=1)


def test_champions_are_told_in_order_with_the_approvals_that_they_used_up(ledger):
    ledger.open_sweep("p", limits(approval=approval("ann", "bob", quorum=1)), "family")
    for number, (champion, by) in enumerate(((FIRST, ("bob", "ann")), (SECOND, ("ann",)))):
        request = ledger.ask_promotion("p", champion, "loop", "better").digest
        for name in by:
            answer(ledger, request, name)
        old = 1.0 + number / 100
        assert ledger.promote("p", f"p/{number}", old, old + 0.01, "max", champion, request) == Allow()
    first, second = Governor(ledger).champions("family")
    assert [first.champion, second.champion] == [FIRST, SECOND]
    assert [one.promotion for one in (first, second)] == ledger.promotions("family")
    assert (first.approvers, second.approvers) == (("ann", "bob"), ("ann",))
    assert second.request == request
    assert not second.rolled_back
    assert ledger.champions("other") == []


def test_a_promotion_of_nobody_in_particular_is_told_without_a_champion(ledger):
    ledger.open_sweep("p", limits(require_approval=False))
    ledger.promote("p", "p/1", 1.0, 1.01)
    (told,) = ledger.champions("p")
    assert (told.champion, told.request, told.approvers) == (None, "", ())
