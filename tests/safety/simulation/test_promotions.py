"""Which promotions the people of a rehearsal have allowed."""

import pytest

from safety import Champion
from safety.simulation.candidates import limits
from safety.simulation.feed import PromotionChange
from safety.simulation.promotions import People
from safety.simulation.timeline import Host, Timeline
from safety.simulation.violation import Call, Violated

CHAMPION = Champion(artifact="a1", parent="", generation=1, evidence="e", train_gflop=1)


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
