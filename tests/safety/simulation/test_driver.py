"""A simulated driver alone: what it makes of answers, of silence, and of its own death."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from safety import Claim, GovernorUnreachable, LooserLimits, Request, Usage
from safety.simulation.candidates import Candidates, Course, limits, tightened
from safety.simulation.driver import PULSE_MS, RETRY_MS, Driver, Policy
from safety.simulation.network import Node
from safety.simulation.timeline import Timeline
from safety.simulation.worker import Surroundings
from tests.safety.simulation.test_worker import run

FIRST = limits(4, tight=False)
REQUEST = Request(
    key="d.0/1",
    digest="d",
    sweep="d.0",
    claim=Claim(params=1, forward_flops=1, memory_bytes=1, train_flops=1, wall_ms=1),
)


@dataclass
class FakeNetwork:
    """Answers what is set, remembers what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)

    def ask(self, _node: Node | None, method: str, *arguments: object, must_deny: str = "") -> Any:
        self.asked.append((method, *arguments))
        answer = self.answers.get(method)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def methods(self) -> list[str]:
        return [what for what, *_ in self.asked]


class FakeWorker:
    """A process with a trial; whether it is cut off from its driver is what its node says."""

    name = "w"

    def __init__(self):
        self.node, self.request, self.reports = Node(), REQUEST, 0

    def die(self):
        self.request = None


@pytest.fixture
def network():
    return FakeNetwork()


@pytest.fixture
def timeline():
    return Timeline()


@pytest.fixture
def policy():
    return Policy(limits=FIRST, first=FIRST)


@pytest.fixture
def driver(network, timeline, policy):
    """A driver that has opened its sweep."""
    invariants = SimpleNamespace(model=SimpleNamespace(sweeps={}))
    around = Surroundings(
        timeline=timeline, rng=Random(0), network=network, invariants=invariants, lies=0.0, holders={}
    )
    driver = Driver("d", around, policy, Candidates.on(Course.STEADY, around.rng))
    driver.start()
    run(timeline, 1)
    assert network.methods() == ["open_sweep"]
    return driver


def test_a_driver_whose_limits_are_looser_than_the_clusters_by_now_begins_another_sweep_under_those(
    driver, network, timeline, policy
):
    policy.limits = tightened(FIRST, 0.5)
    driver.die(1)
    network.answers["open_sweep"] = LooserLimits("trials")
    run(timeline, PULSE_MS + 1)
    assert driver.sweep == "d.1"
    network.answers.clear()
    run(timeline, 2 * PULSE_MS + 1)
    assert network.asked[-1] == ("open_sweep", "d.1", policy.limits)


def test_a_sweep_is_closed_when_none_of_its_workers_can_compute(driver, network, timeline):
    worker = FakeWorker()
    worker.node.cut_off_until = 10 * RETRY_MS
    driver.workers.append(worker)
    driver.close()
    run(timeline, 5 * RETRY_MS)
    assert "close_sweep" not in network.methods()
    run(timeline, 12 * RETRY_MS)
    assert network.methods().count("close_sweep") == 1


def test_a_closing_without_an_answer_is_asked_for_again(driver, network, timeline):
    network.answers["close_sweep"] = GovernorUnreachable("silence")
    driver.close()
    run(timeline, RETRY_MS + 1)
    assert network.methods().count("close_sweep") == 2


def test_a_driver_that_dies_while_it_closes_its_sweep_closes_nothing_more(driver, network, timeline):
    network.answers["close_sweep"] = GovernorUnreachable("silence")
    driver.close()
    driver.die(10 * RETRY_MS)
    run(timeline, 3 * RETRY_MS)
    assert network.methods().count("close_sweep") == 1


def test_a_driver_dies_once_until_another_one_comes(driver, timeline):
    driver.die(1_000)
    driver.die(50_000)
    run(timeline, 1_002)
    assert driver.is_alive


@pytest.mark.parametrize("alive", [True, False])
def test_a_report_that_nobody_hears_stops_no_trial(driver, network, alive):
    worker = FakeWorker()
    if alive:
        worker.request = None
    else:
        driver.die(1_000)
    assert driver.hear(worker, Usage())
    assert "report" not in network.methods()
