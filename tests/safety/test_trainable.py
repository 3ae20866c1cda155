"""Gate 3 around a Trainable that isn't ours, without a Ray that runs."""

import pytest
from ray.tune import Trainable
from ray.tune.result import RESULT_DUPLICATE

from safety import Grant, LeaseKeeper, LeaseLost
from safety.governance import sweep_of_marker
from safety.lease import object_digest
from safety.trainable import Leased, Terms, keeper_of_this_process, leased
from tests.safety.fakes import FakeAuthority


class Theirs(Trainable):
    """Remembers what happened to it."""

    happened: list

    def setup(self, config):
        self.happened.append(("setup", config["width"]))
        if config["width"] == 0:
            raise ValueError("no width")

    def step(self):
        self.happened.append("step")
        return self.config.get("result", {"score": 0.5})

    def reset_config(self, new_config):
        self.happened.append(("reset", new_config["width"]))
        return new_config["width"] < 100

    def save_checkpoint(self, checkpoint_dir):
        return {"saved": 1}

    def load_checkpoint(self, checkpoint):
        self.happened.append(("load", checkpoint))

    def cleanup(self):
        self.happened.append("cleanup")


@pytest.fixture
def authority():
    return FakeAuthority(renewals=[15_000] * 100)


@pytest.fixture
def make(authority, tmp_path, monkeypatch):
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path))
    made = []

    def one(**config):
        terms = Terms(authority=authority, sweep="s", digest=object_digest, meters=None, max_memory=10**9)
        theirs = type("Mine", (Theirs,), {"happened": []})
        made.append(leased(theirs, "named", terms)({"width": 3, **config}))
        return made[-1]

    yield one
    for trainable in made:
        trainable.stop()


def refusing(authority):
    authority.silent = LeaseLost("over the ceiling")


def test_it_is_named_as_ever_and_still_its_class(make):
    trainable = make()
    assert type(trainable).__name__ == "named"
    assert isinstance(trainable, Leased)
    assert isinstance(trainable, Theirs)


def test_nothing_of_it_begins_before_its_lease(make, authority):
    trainable = make()
    assert trainable.happened == []
    assert authority.asked == []
    result = trainable.train()
    assert trainable.happened == [("setup", 3), "step"]
    what, key, digest, _ = authority.asked[0]
    assert (what, key, digest) == ("activate", "s/default", object_digest({"width": 3}))
    assert (result["score"], result["lease"]["reports"], result["done"]) == (0.5, 1, False)
    assert trainable.train()["lease"]["reports"] == 2
    assert len(authority.asked) == 1


def test_without_a_lease_it_ends_refused_and_nothing_of_it_ran(make, authority):
    trainable = make()
    refusing(authority)
    result = trainable.train()
    assert (result["done"], result["lease_refused"]) == (True, "over the ceiling")
    assert "lease" not in result
    assert trainable.save_checkpoint("folder") == {"lease_refused": True}
    trainable.stop()
    assert trainable.happened == []


def test_a_function_that_returned_is_settled_for_what_it_did_after_its_last_report(make, authority):
    trainable = make()
    trainable.train()
    trainable.config["result"] = {RESULT_DUPLICATE: True}
    assert trainable.train() == {RESULT_DUPLICATE: True}
    what, _, _, usage = authority.asked[-1]
    assert (what, usage.reports) == ("settle", 2)


def test_a_setup_that_fails_is_settled_and_fails(make, authority):
    trainable = make(width=0)
    with pytest.raises(ValueError, match="no width"):
        trainable.train()
    assert authority.asked[-1][0] == "settle"


def test_it_goes_on_from_a_checkpoint_under_its_lease(make):
    trainable = make()
    trainable.load_checkpoint({"saved": 1})
    assert trainable.happened == [("setup", 3), ("load", {"saved": 1})]
    assert trainable.save_checkpoint("folder") == {"saved": 1}


def test_a_checkpoint_is_not_loaded_without_a_lease_and_the_next_step_tells(make, authority):
    trainable = make()
    refusing(authority)
    trainable.load_checkpoint({"saved": 1})
    assert trainable.happened == []
    authority.silent = None
    assert trainable.train()["lease_refused"] == "over the ceiling"


def test_another_trial_has_another_lease(make, authority):
    trainable = make()
    trainable.train()
    assert trainable.reset({"width": 4})
    assert trainable.train()["lease"]["reports"] == 1
    assert [entry[2] for entry in authority.asked if entry[0] == "activate"] == [
        object_digest({"width": 3}),
        object_digest({"width": 4}),
    ]
    assert trainable.happened == [("setup", 3), "step", ("reset", 4), "step"]


def test_another_trial_after_one_that_was_refused_is_set_up_from_nothing(make, authority):
    trainable = make()
    refusing(authority)
    trainable.train()
    authority.silent = None
    assert trainable.reset({"width": 4})
    assert trainable.train()["score"] == 0.5
    assert trainable.happened == [("setup", 4), "step"]


def test_another_trial_that_is_refused_resets_nothing_and_the_next_step_tells(make, authority):
    trainable = make()
    trainable.train()
    refusing(authority)
    assert trainable.reset({"width": 4})
    assert trainable.train()["lease_refused"] == "over the ceiling"
    assert trainable.happened == [("setup", 3), "step"]


def test_a_reset_that_does_not_work_gives_its_lease_back(make, authority):
    trainable = make()
    trainable.train()
    assert not trainable.reset({"width": 100})
    assert authority.asked[-1][0] == "settle"


def test_it_says_which_sweep_it_works_for_while_it_holds_no_lease(make):
    assert sweep_of_marker(repr(make())) == "s"


def test_it_is_cleaned_up_as_ever(make):
    trainable = make()
    trainable.train()
    trainable.stop()
    assert trainable.happened[-1] == "cleanup"


def test_a_process_that_ray_has_started_buries_its_children_and_ends_when_tune_is_done(make, monkeypatch):
    done = []
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.get_runtime_context", lambda: Actor)
    monkeypatch.setattr("safety.trainable.bury_children", lambda: done.append("bury"))
    monkeypatch.setattr(LeaseKeeper, "leave", lambda keeper: done.append("leave"))
    trainable = make()
    trainable.train()
    trainable.happened = done  # what it cleans up, it does on the time that is left
    assert done == ["bury"]
    trainable.stop()
    assert done == ["bury", "leave", "cleanup"]


class Actor:
    @staticmethod
    def get_actor_id():
        return "one"


def test_a_worker_of_another_process_renews_only_while_it_hears_of_that_one(authority):
    led = [False]
    keeper = keeper_of_this_process(authority, led=lambda: led[0])
    grant = Grant(lease=1, fence=1, ttl_ms=15_000, claim=authority.claim)
    with pytest.raises(LeaseLost, match="is gone or stands still"):
        keeper.join(grant, elapsed_ms=0, sharers=2)
    led[0] = True
    keeper.join(grant, elapsed_ms=0, sharers=2)
    keeper.end()
