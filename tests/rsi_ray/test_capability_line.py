from rsi_ray.view import capability_of
from safety import Nearness, Status


def near(domain, score, ceiling):
    return Nearness(domain=domain, score=score, ceiling=ceiling, level=80)


def test_the_domains_near_their_ceilings_stand_in_one_line_the_nearest_first():
    status = Status(
        state="open", reason="", budgets=(), near=(near("code", 0.76, 0.9), near("logic", 0.91, 0.95))
    )
    (line,) = capability_of(status)
    assert line.plain == "capability: logic 0.91 of 0.95 (96%), code 0.76 of 0.9 (84%)"


def test_no_line_stands_where_no_domain_is_near():
    assert capability_of(Status(state="open", reason="", budgets=())) == []
