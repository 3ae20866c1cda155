"""A simulated worker alone: its own clock, and what it makes of silence and of a lease that is lost."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from safety import Claim, GovernorUnreachable, Grant, LeaseLost, Request, Usage
from safety.simulation.model import Modelled, charges_of, cut_short
from safety.simulation.network import Node
from safety.simulation.timeline import Timeline
from safety.simulation.worker import Surroundings, Worker

CLAIM = Claim(
    params=1, forward_flops=1, memory_bytes=1, train_flops=50 * 10**9, wall_ms=100_000, gpu_ms=0, reports=50
)
REQUEST = Request(key="s/1", digest="d", sweep="s", claim=CLAIM)


@dataclass
class FakeSurroundings:
    """Both the network and who gives trials: answers what is set, remembers what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    tally: Counter[str] = field(default_factory=Counter)
    goes_on: bool = True
    freed: int = 0

    def ask(self, _node: Node, method: str, *_: object, must_deny: str = "") -> Any:
        self.asked[method] += 1
        answer = self.answers.get(method)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hear(self, _worker: Worker, _usage: Usage) -> bool:
        return self.goes_on

    def is_free(self, _worker: Worker, _request: Request | None) -> None:
        self.freed += 1

    def computes(self, *_: int) -> None:
        pass


@pytest.fixture
def others():
    return FakeSurroundings(
        {"activate": Grant(lease=1, fence=1, ttl_ms=15_000, claim=CLAIM), "renew": 15_000}
    )


@pytest.fixture
def timeline():
    return Timeline()


@pytest.fixture
def worker(others, timeline):
    around = Surroundings(
        timeline=timeline, rng=Random(0), network=others, invariants=others, lies=0.0, holders={}
    )
    worker = Worker("w", Node(), around, others)
    worker.assign(REQUEST)
    return worker


def run(timeline: Timeline, until_ms: int) -> None:
    """Do all that is planned until then."""
    timeline.after(until_ms - timeline.now, "the end", lambda: None)
    while True:
        what, act = timeline.advance()
        if what == "the end":
            return
        act()


def test_a_worker_without_an_answer_dies_at_its_deadline(others, timeline, worker):
    run(timeline, 2_000)
    assert worker.may_compute
    others.answers["renew"] = GovernorUnreachable("silence")
    run(timeline, 15_000)
    assert worker.may_compute
    run(timeline, 17_000)
    assert (worker.request, others.tally["deadlines met"], others.freed) == (None, 1, 1)


def test_a_worker_that_is_renewed_goes_on(others, timeline, worker):
    run(timeline, 60_000)
    assert worker.may_compute
    assert others.asked["renew"] > 10


def test_a_worker_dies_when_its_renewal_is_refused(others, timeline, worker):
    others.answers["renew"] = LeaseLost("revoked")
    run(timeline, 7_000)
    assert (worker.request, others.asked["renew"], others.freed) == (None, 1, 1)


def test_a_worker_that_was_stopped_past_its_deadline_dies_before_it_computes(others, timeline, worker):
    run(timeline, 2_000)
    worker.stop(30_000)
    worker.stop(1)  # it is stopped already
    run(timeline, 31_000)
    assert (worker.stopped, worker.may_compute, others.asked["renew"]) == (True, False, 0)
    run(timeline, 33_000)
    assert (worker.request, others.asked["renew"], others.tally["deadlines met"]) == (None, 0, 1)


def test_a_worker_that_was_stopped_for_a_moment_catches_up(others, timeline, worker):
    run(timeline, 2_000)
    worker.stop(8_000)
    run(timeline, 12_000)
    assert worker.may_compute
    assert others.asked["renew"] >= 1


def test_a_worker_that_was_stopped_and_has_another_trial_since_is_not_continued(others, timeline, worker):
    run(timeline, 2_000)
    worker.stop(10_000)
    worker.die()
    worker.assign(REQUEST)
    run(timeline, 3_500)
    worker.stop(20_000)
    run(timeline, 13_000)
    assert worker.stopped


@pytest.mark.parametrize(
    ("answer", "asked", "too_late"), [(LeaseLost("forfeited"), 1, 1), (GovernorUnreachable("silence"), 4, 0)]
)
def test_a_worker_settles_until_it_is_answered_or_gives_up(others, timeline, worker, answer, asked, too_late):
    others.goes_on, others.answers["settle"] = False, answer
    run(timeline, 60_000)
    assert (others.asked["settle"], others.tally["settled too late"], others.freed) == (asked, too_late, 1)


@pytest.mark.parametrize(("answer", "asked"), [(LeaseLost("void"), 1), (GovernorUnreachable("silence"), 4)])
def test_a_worker_begins_until_it_is_answered_or_gives_up(others, timeline, worker, answer, asked):
    others.answers["activate"] = answer
    run(timeline, 60_000)
    assert (others.asked["activate"], others.freed, worker.may_compute) == (asked, 1, False)


def test_a_usage_of_another_lease_counts_for_nothing_when_a_trial_is_cut_short():
    lease = Modelled(
        id=7,
        trial="s/1",
        key="s/1",
        sweep="s",
        claim=CLAIM,
        charges=charges_of(CLAIM, counted=False, credit={}),
    )
    told = {number: cut_short(lease, Usage(gpu_ms=0, reports=9, lease=number), 10) for number in (0, 7, 8)}
    assert told[0] == told[7]
    assert cut_short(lease, Usage(), 10) == told[8]
