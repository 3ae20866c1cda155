"""Gate 3 of our own Trainable, without a Ray that runs."""

import pytest

from rsi_ray.worker import Candidate
from safety import Usage
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

    def one(kind="good"):
        class Prepared(Candidate):
            def setup(self, config):
                job = BehavingJob(kind=kind)
                super().setup(config, job=job, authority=authority, sweep="s", weights=tmp_path / "w")

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


def test_a_failure_after_the_last_report_counts_no_further_one(make, authority):
    candidate = make()
    candidate._keeper._clock = Clock()
    candidate.train()
    candidate._reports = authority.claim.reports
    candidate._settle_cut_short()
    assert authority.asked[-1][-1].reports == authority.claim.reports
