"""What a governed Trainable takes of its GPUs is looked at, by whatever tells of it."""

import sys

import pytest
from ray.tune import Trainable

from safety import LeaseKeeper, device_memory
from safety.device_memory import BUILT_IN, DeviceMemories, found_device_memories
from safety.lease import object_digest
from safety.meter import _Watcher
from safety.resources import ALLOWANCE_BYTES
from safety.trainable import Terms, leased
from tests.safety.fakes import FakeAuthority, claim
from tests.safety.test_keeper import FakeSwitch

LIBRARY = "a_library_on_gpus"
MOST = claim().memory_bytes + ALLOWANCE_BYTES
taken = {"bytes": 0}
made = []


class FakeDevice:
    """GPUs whose memory a test sets."""

    def __init__(self):
        self.before = None
        made.append(self)

    def begin(self):
        self.before = taken["bytes"]

    def grown_bytes(self):
        return taken["bytes"] - self.before


MAKERS = ((LIBRARY, f"{__name__}:FakeDevice"),)


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    (tmp_path / f"{LIBRARY}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    made.clear()
    taken["bytes"] = 10 * MOST
    yield
    sys.modules.pop(LIBRARY, None)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Watcher)]


def test_before_its_library_is_imported_nothing_is_taken():
    memories = DeviceMemories(MAKERS)
    memories.begin()
    assert (memories.grown_bytes(), made) == (0, [])
    __import__(LIBRARY)
    taken["bytes"] += 5
    assert memories.grown_bytes() == 5
    memories.begin()
    assert memories.grown_bytes() == 0


def test_what_several_tell_of_adds_up():
    __import__(LIBRARY)
    memories = DeviceMemories(MAKERS * 2)
    taken["bytes"] += 5
    assert memories.grown_bytes() == 10


def test_they_are_found_by_their_entry_points_or_are_the_built_in_one(monkeypatch):
    monkeypatch.setattr(device_memory, "installed", lambda group: ((group, "a:B"),))
    assert found_device_memories() == (("safety.device_memories", "a:B"),)
    monkeypatch.setattr(device_memory, "installed", lambda group: ())
    assert found_device_memories() == BUILT_IN


# --- a governed Trainable


@pytest.fixture
def trial(monkeypatch, tmp_path):
    """Makes one in a process of its own, as far as it knows; its step grows by so much, and waits."""
    monkeypatch.setattr("safety.keeper.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path))
    monkeypatch.setattr("safety.trainable.is_own_process", lambda: True)
    switch = FakeSwitch()
    keepers = []

    def keeper_of(authority, memory=None, device=None, untold=None):
        watch = {"memory": memory, "device": device, "untold": untold}
        keepers.append(LeaseKeeper(authority, switch, **watch))
        return keepers[-1]

    class Grows(Trainable):
        def step(self):
            __import__(LIBRARY)
            taken["bytes"] += self.config["bytes"]
            return {"died": switch.thrown.wait(self.config["seconds"])}

    def one(device, grown, *, seconds, max_memory=10**9):
        authority = FakeAuthority(renewals=[15_000] * 100, claim=claim(gpu_ms=1))
        terms = Terms(
            authority=authority,
            sweep="s",
            digest=object_digest,
            meters=None,
            max_memory=max_memory,
            device_memory=device,
        )
        trainable = leased(Grows, "named", terms)({"bytes": grown, "seconds": seconds})
        trainable.train()
        return switch.thrown.is_set(), [what[3] for what in authority.asked if what[0] == "observe"]

    monkeypatch.setattr("safety.trainable.keeper_of_this_process", keeper_of)
    yield one
    for keeper in keepers:
        keeper.end()


@pytest.mark.parametrize("device", [FakeDevice, lambda: MAKERS])
def test_a_trial_that_takes_more_of_its_gpus_than_it_claims_tells_and_dies(trial, device):
    assert trial(device(), MOST + 1, seconds=5) == (True, [MOST + 1])


def test_what_it_claims_and_what_any_process_may_it_takes(trial):
    assert trial(MAKERS, MOST, seconds=0.1) == (False, [])


def test_nobody_looks_where_none_tells_or_nobody_told_what_it_may_take(trial):
    assert trial(None, 2 * MOST, seconds=0.1) == (False, [])
    assert trial(MAKERS, 2 * MOST, seconds=0.1, max_memory=claim().memory_bytes) == (False, [])


def test_in_a_process_with_others_work_nobody_looks(monkeypatch):
    seen = []
    monkeypatch.setattr("safety.trainable.keeper_of_this_process", lambda *told, **more: seen.append(told))
    authority = FakeAuthority()
    told = {"authority": authority, "sweep": "s", "digest": object_digest, "meters": None, "max_memory": 1}
    Terms(**told, device_memory=MAKERS).tenure()
    assert seen == [(authority, None, None)]
