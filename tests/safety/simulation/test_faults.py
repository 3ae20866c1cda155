"""What befalls a rehearsal's cluster, one thing at a time."""

from collections import Counter
from random import Random

import pytest

from safety import LedgerError
from safety.simulation.faults import LEASE_AND_GRACE_MS, Fate
from safety.simulation.timeline import Timeline
from tests.safety.simulation.test_worker import run


class FakeNetwork:
    """Remembers what the operator did, and when."""

    def __init__(self, timeline):
        self.timeline, self.done, self.tally, self.refuses = timeline, [], Counter(), False

    def operate(self, *what):
        self.done.append((self.timeline.now, *what))
        if self.refuses:
            raise LedgerError("no")


@pytest.fixture
def timeline():
    return Timeline()


@pytest.fixture
def network(timeline):
    return FakeNetwork(timeline)


@pytest.fixture
def fate(timeline, network):
    return Fate(
        timeline=timeline,
        rng=Random(0),
        network=network,
        policy=None,
        drivers=[],
        workers=[],
        approvers=None,
        responders=None,
    )


def test_a_switch_that_is_thrown_is_lifted_after_a_while(fate, timeline, network):
    fate.switch_is_thrown()
    assert network.done == [(0, "kill", "rehearsed", "operator")]
    run(timeline, 3 * LEASE_AND_GRACE_MS + 1)
    (_, (at_ms, *lifted)) = network.done
    assert lifted == ["unkill", "rehearsed", "operator"]
    assert 0 < at_ms <= 3 * LEASE_AND_GRACE_MS


def test_what_the_ledger_refuses_its_operator_is_counted(fate, network):
    network.refuses = True
    fate.switch_is_thrown()
    assert network.tally["operator refused"] == 1
