import threading
from types import SimpleNamespace

import pytest

from safety import GovernorUnreachable
from safety.governance import Governance
from safety.watch import end_workers, watched
from tests.safety.fakes import FakeAuthority, claim


@pytest.fixture
def killed(monkeypatch):
    """Workers that were killed, and an event when one is."""
    found, event = [], threading.Event()

    def kill(actor):
        found.append(actor)
        event.set()

    monkeypatch.setattr("safety.watch.ray.kill", kill)
    monkeypatch.setattr("safety.watch.WATCH_SECONDS", 0.01)
    return SimpleNamespace(workers=found, event=event)


def controller(*actors):
    live = {f"tracked {actor}": (actor, "resources") for actor in actors}
    return SimpleNamespace(_actor_manager=SimpleNamespace(_live_actors_to_ray_actors_resources=live))


@pytest.fixture
def authority():
    return FakeAuthority()


@pytest.fixture
def governance(authority):
    made = Governance(authority=authority, sweep="s", price=lambda config: claim())
    made.heard.controller = controller("one", "two")
    return made


@pytest.mark.parametrize("state", ["killed", "frozen"])
def test_the_workers_of_a_sweep_that_is_killed_or_frozen_are_ended_at_once(
    authority, governance, killed, state
):
    authority.states = state
    with watched(governance):
        assert killed.event.wait(5)
    assert set(killed.workers) == {"one", "two"}


@pytest.mark.parametrize("state", ["open", "closed"])
def test_the_workers_of_any_other_sweep_go_on(authority, governance, killed, state):
    authority.states = state
    with watched(governance):
        assert not killed.event.wait(0.1)
    assert ("state", "s") in authority.asked


def test_a_governor_that_is_silent_is_asked_again(authority, governance, killed):
    authority.silent = GovernorUnreachable("no answer")
    authority.states = "killed"
    with watched(governance):
        assert not killed.event.wait(0.1)
        authority.silent = None
        assert killed.event.wait(5)


def test_before_the_first_trial_nobody_is_ended():
    assert end_workers(None) == 0
