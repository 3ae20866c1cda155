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


def freely(ledger):
    ledger.open_sweep("p", limits(require_approval=False), "family")
    return ledger


def old_told(ledger, old, champion=SECOND, key="p/2", new=None):
    return ledger.promote("p", key, old, new or old + 0.01, champion=champion)


def test_the_score_that_a_champion_is_compared_with_is_the_ledgers(ledger):
    freely(ledger)
    assert ledger.promote("p", "p/1", 1.0, 1.01, champion=FIRST) == Allow()
    for told in (1.02, float("nan")):
        denial = old_told(ledger, told, new=1.03)
        assert (denial.rule, denial.reason) == (
            "old_score",
            f"lineage family: its champion scored 1.01, and {told!r} is told of it",
        )
    _, entry, _ = ledger.audit()[-1]
    assert (entry.kind, entry.rule, entry.key) == ("deny", "old_score", "p/2")
    assert ledger.promotions("family")[-1].new == 1.01
    assert old_told(ledger, 1.01) == Allow()


def test_what_is_told_first_of_a_base_is_its_score_from_then_on(ledger):
    freely(ledger)
    assert ledger.promote("p", "p/1", 1.0, 3.0, champion=FIRST).rule == "max_improvement_rate"
    assert old_told(ledger, 2.9, FIRST, "p/1", new=3.0).reason == (
        "lineage family: its champion scored 1.0, and 2.9 is told of it"
    )
    assert old_told(ledger, 1.0, FIRST, "p/1") == Allow()
    assert [entry.key for _, entry, _ in ledger.audit() if entry.kind == "base"] == ["family"]


def test_after_a_rollback_the_score_is_that_of_the_champion_that_stands(ledger):
    freely(ledger)
    assert ledger.promote("p", "p/1", 1.0, 1.01, champion=FIRST) == Allow()
    assert old_told(ledger, 1.01) == Allow()
    third = Champion(artifact="a3", parent="a1", generation=3, evidence="e3", train_gflop=1)
    ledger.rollback("family", "a1", "it lies", "ann")
    assert old_told(ledger, 1.02, third, "p/3").rule == "old_score"
    assert old_told(ledger, 1.01, third, "p/3") == Allow()


def test_a_base_whose_score_is_no_number_is_held_until_people_have_seen_it(ledger):
    freely(ledger)
    assert ledger.promote("p", "p/1", float("nan"), 1.0, champion=FIRST).rule == "max_improvement_rate"
    assert old_told(ledger, 1.0, FIRST, "p/1") == Allow()
