"""Gate 3 of our own Trainable, without a Ray that runs."""

import pytest
import torch

from rsi_ray.cuda_memory import OutOfMemory
from rsi_ray.errors import WorkerLost
from rsi_ray.worker import Candidate
from safety import LeaseLost, Usage
from safety.governance import marker, sweep_of_marker
from tests.integration.jobs import BehavingJob
from tests.safety.fakes import GFLOP, FakeAuthority


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def authority():
    return FakeAuthority(claim=BehavingJob().price({"width": 3}), renewals=[15_000] * 100, ttl_ms=10**6)


@pytest.fixture
def make(authority, tmp_path, monkeypatch):
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path))
    made = []

    def one(kind="good", run="", seconds=None):
        class Prepared(Candidate):
            def setup(self, config):
                job, weights, states = BehavingJob(kind=kind), tmp_path / "w", tmp_path / "states"
                super().setup(
                    config,
                    job=job,
                    authority=authority,
                    sweep="s",
                    weights=weights,
                    states=states,
                    state_seconds=seconds,
                    run=run,
                )

        made.append(Prepared({"width": 3}))
        return made[-1]

    yield one
    for candidate in made:
        candidate.stop()


def test_a_candidate_whose_time_is_over_between_two_steps_tells_no_more_time_than_it_claimed(make):
    candidate, clock = make(), Clock()
    candidate._keeper._clock = clock
    candidate.train()
    clock.now += 60.5
    told = candidate.train()
    assert told["lease_refused"] == "the lease is over"
    assert (told["lease"]["wall_ms"], told["lease"]["reports"]) == (60_000, 2)


def test_a_candidate_that_fails_is_settled_up_to_its_next_report(make, authority):
    candidate = make("raise")
    candidate._keeper._clock = Clock()
    candidate.train()
    with pytest.raises(ValueError, match="no such luck"):
        candidate.train()
    assert authority.asked[-1] == ("settle", 1, 1, Usage(train_flops=2 * GFLOP, reports=2))


def test_a_candidate_out_of_gpu_memory_fails_with_the_reservation_and_its_process_goes_on(
    make, authority, monkeypatch
):
    candidate, emptied = make(), []
    candidate._keeper._clock = Clock()
    monkeypatch.setattr("rsi_ray.worker.give_back", lambda: emptied.append(candidate._run))
    candidate.train()

    def full():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has")

    monkeypatch.setattr(candidate._run, "next_report", full)
    with pytest.raises(OutOfMemory, match=r"reserved [\d,]+ bytes.*20.00 MiB\.$") as told:
        candidate.step()
    assert authority.asked[-1] == ("settle", 1, 1, Usage(train_flops=2 * GFLOP, reports=2))
    assert emptied == [None]  # the candidate is gone by then
    assert told.value.__context__ is None  # a traceback would hold its tensors
    assert candidate.reset({"width": 3})
    candidate.train()


def test_a_failure_after_the_last_report_counts_no_further_one(make, authority):
    candidate = make()
    candidate._keeper._clock = Clock()
    candidate.train()
    candidate._reports = authority.claim.reports
    candidate._settle_cut_short()
    assert authority.asked[-1][-1].reports == authority.claim.reports


def test_a_worker_is_named_by_its_sweep_its_trial_the_generations_run_and_its_spec(make):
    candidate = make(run="s-g3-ab12")
    assert repr(candidate) == f"{marker('s', candidate.trial_id)} s-g3-ab12 width3"
    alone = make()
    assert repr(alone) == f"{marker('s', alone.trial_id)} width3"
    assert repr(Candidate.__new__(Candidate)) == "Candidate"


@pytest.mark.parametrize("text", ["a/b", "(other/2)", "x" * 1000])
def test_a_worker_is_known_by_its_sweep_whatever_its_spec_says_and_however_long(make, text):
    candidate = make()
    candidate.config = {"cells": text}
    assert sweep_of_marker(repr(candidate)) == "s"
    assert repr(candidate).endswith(text[:120])
    assert len(repr(candidate)) < 200


def test_a_worker_holds_its_gpus_memory_against_its_lease(make, monkeypatch):
    read = []
    monkeypatch.setattr("rsi_ray.device_metrics.Exporter", lambda metrics, samples: read.append(samples))
    candidate = make()
    candidate.train()
    used, reserved = read[0]()
    assert (used.value, reserved.value) == (0, candidate._keeper.grant.claim.memory_bytes)


def states(tmp_path):
    return sorted(path.name.rpartition("-")[2] for path in (tmp_path / "states").glob("*"))


def left_in_training(make):
    """A candidate that has left the state of its first report."""
    candidate = make(seconds=0)
    candidate.train()
    candidate.train()


def test_a_candidate_goes_on_where_the_process_before_was_lost(make, authority, tmp_path):
    first = make(seconds=0)
    first.train()
    # nobody has asked for another report: this one may not have been heard
    assert states(tmp_path) == []
    first.train()
    assert states(tmp_path) == ["1.safetensors"]
    second = make(seconds=0)
    told = second.train()
    # under its own lease it has made one report
    assert (told["training_iteration"], told["lease"]["reports"]) == (2, 1)
    assert second.train()["done"]
    # the last one may be lost on its way too: whoever is tried again then computes it alone
    assert states(tmp_path) == ["2.safetensors"]
    assert make(seconds=0).train()["done"]


def test_a_candidate_whose_state_can_not_be_read_begins_anew(make, tmp_path):
    left_in_training(make)
    (state,) = (tmp_path / "states").iterdir()
    state.write_text("torn")
    told = make(seconds=10**6).train()
    assert told["training_iteration"] == 1
    assert states(tmp_path) == []


def test_a_candidate_goes_on_from_no_state_of_another_one(make, tmp_path):
    left_in_training(make)
    other = make(seconds=0)
    other.config = {"width": 4}
    assert other.train()["training_iteration"] == 1


def test_without_states_a_candidate_writes_none_and_begins_anew(make, tmp_path):
    make().train()
    assert states(tmp_path) == []
    left_in_training(make)
    assert make().train()["training_iteration"] == 1


def test_a_storage_that_is_away_costs_a_candidate_its_state_alone(make, tmp_path):
    (tmp_path / "states").write_text("a file where the folder should be")
    candidate = make(seconds=0)
    assert [candidate.train()["done"] for _ in range(3)] == [False, False, True]


def test_a_lease_under_which_a_worker_was_lost_is_left_to_be_reaped(make, authority):
    candidate = make()
    candidate.train()

    def lose():
        raise WorkerLost("worker 1 of the candidate died, or can't be reached")

    candidate._run.next_report = lose
    with pytest.raises(WorkerLost):
        candidate.train()
    assert "settle" not in [asked[0] for asked in authority.asked]
    with pytest.raises(LeaseLost):
        _ = candidate._keeper.grant


def test_a_candidate_that_is_restored_leaves_the_state_of_the_one_before_alone(make, tmp_path):
    candidate = make(seconds=0)
    candidate.train()
    candidate.train()
    checkpoint = tmp_path / "c"
    checkpoint.mkdir()
    candidate.save_checkpoint(str(checkpoint))
    candidate.reset_config({"width": 4})
    candidate.config, candidate._iteration = {"width": 4}, 0
    candidate.load_checkpoint(str(checkpoint))
    candidate.train()
    candidate.train()
    assert len(states(tmp_path)) == 2
