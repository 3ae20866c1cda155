"""A candidate trained by two processes, without Ray: the same numbers as by one, and no life of their own."""

from __future__ import annotations

import io
import os
import signal
import time
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from rsi_ray.crew import Assignment, Crew
from rsi_ray.errors import TrainingError, WorkerLost
from rsi_ray.placement import Placement
from safety import Grant
from safety.errors import LeaseLost
from tests.rsi_ray.crews import CONFIG, Processes, job


@dataclass
class Renewing:
    """Renews whatever is asked for, or refuses; sent to each worker."""

    ttl_ms: int = 15_000
    refuses: bool = False

    def renew(self, lease: int, fence: int) -> int:
        if self.refuses:
            raise LeaseLost("revoked")
        return self.ttl_ms


@pytest.fixture
def processes():
    processes = Processes()
    yield processes
    processes.kill()


@pytest.fixture
def start(processes):
    crews = []

    def one(strategy="ddp", authority=None, config=CONFIG):
        of, authority = job(strategy=strategy), authority or Renewing()
        grant = Grant(lease=1, fence=1, ttl_ms=authority.ttl_ms, claim=of.price(config))
        placement = Placement(cpus=1, gpus=0.0, workers=2, sharded=strategy == "fsdp2")
        assignment = Assignment(
            job=of, config=config, authority=authority, grant=grant, placement=placement, sweep="s", trial="t"
        )
        crews.append(Crew())
        crews[-1].begin(processes, assignment, host="127.0.0.1", elapsed_ms=lambda: 0)
        return crews[-1]

    yield one
    for crew in crews:
        crew.abandon()


def alone(reports=3):
    run = job(workers=1).begin(CONFIG)
    return run, [run.next_report() for _ in range(reports)]


def are_alike(found, expected):
    assert found["samples"] == expected["samples"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert found["score"] == pytest.approx(expected["score"], abs=1e-6)
    assert found["domains"] == pytest.approx(expected["domains"], abs=1e-6)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_workers_report_and_export_what_one_does_and_go_on_from_what_they_saved(
    start, processes, strategy, tmp_path
):
    run, expected = alone()
    crew = start(strategy)
    are_alike(crew.next_report(), expected[0])
    crew.save(tmp_path / "state")
    are_alike(crew.next_report(), expected[1])
    crew.restore(tmp_path / "state")
    are_alike(crew.next_report(), expected[1])
    are_alike(crew.next_report(), expected[2])
    crew.export(tmp_path / "weights")
    crew.end()
    assert processes.ended_within(30)
    run.export(tmp_path / "alone")
    ours, theirs = load_file(tmp_path / "weights"), load_file(tmp_path / "alone")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-5)
    run.restore(tmp_path / "state")  # one process goes on from it as well
    are_alike(run.next_report(), expected[1])


@pytest.mark.parametrize("content", [b"none", None])
def test_a_state_that_is_none_or_another_candidates_fails_them_all(start, processes, tmp_path, content):
    crew, path = start(), tmp_path / "state"
    crew.next_report()
    if content is None:
        save_file({"epoch": torch.tensor(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"worker [01]: (SafetensorError|ValueError)") as failed:
        crew.restore(path)
    assert not isinstance(failed.value, WorkerLost)
    crew.end()
    assert processes.ended_within(30)


def test_nothing_is_computed_until_the_next_report_is_asked_for(start, tmp_path):
    crew = start()
    crew.next_report()
    time.sleep(1)
    crew.save(tmp_path / "state")
    assert int(load_file(tmp_path / "state")["epoch"]) == 1


def test_workers_die_at_once_when_the_trials_process_hangs_up(start, processes):
    crew = start()
    crew.next_report()
    crew.abandon()
    assert processes.ended_within(10)
    assert {process.exitcode for process in processes.started} == {-signal.SIGKILL}


def test_a_worker_that_dies_fails_the_candidate_and_the_others_end_with_it(start, processes):
    crew = start()
    crew.next_report()
    os.kill(processes.started[1].pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match="worker"):
        crew.next_report()
    crew.abandon()
    assert processes.ended_within(10)


class Full(io.BytesIO):
    """A file on a disk that is full."""

    def write(self, content):
        raise OSError(28, "No space left on device")


def test_a_file_that_can_not_be_written_leaves_nothing_on_the_lines(start, tmp_path):
    crew = start()
    crew.next_report()
    with pytest.raises(OSError, match="No space left"):
        crew._ask("export", into=Full())
    crew.export(tmp_path / "weights")
    assert load_file(tmp_path / "weights")
    assert crew.next_report()["score"] >= 0


def test_a_worker_that_fails_since_another_one_died_is_no_failure_of_the_candidate(start, processes):
    crew = start()
    crew.next_report()
    os.kill(processes.started[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="worker 0 of the candidate died"):
        crew._look_for_the_dead(1)


def test_a_worker_that_fails_tells_why(start):
    crew = start()
    crew._tell("no such order")
    with pytest.raises(TrainingError, match="KeyError"):
        crew._answers()


def test_workers_that_the_lease_is_refused_to_build_nothing(start, processes):
    with pytest.raises(TrainingError, match="LeaseLost: revoked"):
        start(authority=Renewing(refuses=True))


def test_workers_die_with_the_lease_though_nobody_tells_them_to(start, processes):
    crew = start(authority=Renewing(ttl_ms=1500))
    crew.next_report()
    for process in processes.started:  # no thread of theirs may help them
        os.kill(process.pid, signal.SIGSTOP)
    assert processes.ended_within(10)
    with pytest.raises(WorkerLost, match="died"):
        crew.next_report()


def test_workers_that_hear_nothing_of_the_trials_process_renew_no_more(start, processes):
    crew = start(authority=Renewing(ttl_ms=3000))
    crew.next_report()
    crew._over.set()  # it lives and is silent, as if it were cut off
    assert processes.ended_within(20)
    assert {process.exitcode for process in processes.started} == {-signal.SIGKILL}


def test_workers_that_do_not_start_are_told_of(processes):
    @dataclass
    class Nothing:
        def __call__(self, assignment):
            return self

        def trouble(self):
            return "no GPU is free"

        def wait(self, seconds):
            pass

    crew, of = Crew(), job()
    grant = Grant(lease=1, fence=1, ttl_ms=1000, claim=of.price(CONFIG))
    assignment = Assignment(
        job=of, config=CONFIG, authority=Renewing(), grant=grant,
        placement=Placement(cpus=1, gpus=0.0, workers=2), sweep="s", trial="t",
    )  # fmt: skip
    with pytest.raises(TrainingError, match="the 2 workers of the candidate don't start: no GPU is free"):
        crew.begin(Nothing(), replace(assignment), host="127.0.0.1", elapsed_ms=lambda: 0)
