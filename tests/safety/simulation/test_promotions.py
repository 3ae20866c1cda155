"""Which promotions the people of a rehearsal have allowed."""

import pytest

from safety import Champion
from safety.approval import Act, Request, decide
from safety.simulation.approvers import with_approvers
from safety.simulation.candidates import limits
from safety.simulation.feed import PromotionChange
from safety.simulation.promotions import People
from safety.simulation.timeline import Host, Timeline
from safety.simulation.violation import Call, Violated
from tests.safety.approvers import identity

CHAMPION = Champion(artifact="a1", parent="", generation=1, evidence="e", train_gflop=1)


@pytest.mark.parametrize(
    ("answers", "agree"),
    [
        ({"ann": "approve", "bob": "approve"}, True),
        ({"ann": "approve", "bob": "approve", "eve": "reject"}, False),
        ({"ann": "approve"}, False),
        ({"ann": "approve", "stranger": "approve"}, False),
        # who asks does not count
        ({"ann": "approve", "eve": "approve"}, False),
    ],
)
def test_people_agree_once_so_many_as_must_have_approved_and_nobody_has_rejected(answers, agree):
    act = Act(kind="release", subject="d", policy="p", sweep="s")
    request = Request(act=act, about="", by="eve", at_ms=0, expires_ms=1)
    decisions = [decide(request.digest, answer, by, "seen", identity(by)) for by, answer in answers.items()]
    two_of_three = with_approvers(limits(1, tight=False))
    assert People(taken={request.digest: decisions}).agree(request, two_of_three) is agree


@pytest.mark.parametrize(
    ("method", "told"),
    [("admit", "k was promoted by admit"), ("promote", "request none, which nobody has asked for")],
)
def test_a_promotion_that_nobody_has_asked_for_is_wrong(method, told):
    call = Call(method=method, arguments=("s", "k", 1.0, 2.0, "max", CHAMPION, ""))
    people = People()
    with pytest.raises(Violated, match=f"^I10: .*{told}"):
        people.follow(
            call, PromotionChange(key="k", sweep="s", id=1), limits(1, tight=False), Host(Timeline())
        )
    assert people.champions == {}
