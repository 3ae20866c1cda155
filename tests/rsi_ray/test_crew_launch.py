"""What Ray Train is asked for, without a Ray that runs; tests/integration runs it on a real one."""

import pytest

from rsi_ray.crew import Assignment
from rsi_ray.crew_launch import Training, trainer_of
from rsi_ray.placement import Placement
from safety import Grant
from safety.cluster import SAYS
from tests.rsi_ray.crews import CONFIG, job
from tests.safety.fakes import FakeAuthority


def assignment(**placement):
    of = job()
    return Assignment(
        job=of,
        config=CONFIG,
        authority=FakeAuthority(),
        grant=Grant(lease=7, fence=1, ttl_ms=1000, claim=of.price(CONFIG)),
        placement=Placement(**{"cpus": 3, "gpus": 0.0, "workers": 2, **placement}),
        sweep="s",
        trial="t1",
    )


def test_each_worker_gets_the_cores_and_gpus_of_the_placement(tmp_path):
    scaling = trainer_of(assignment(gpus=1.0), str(tmp_path)).scaling_config
    assert (scaling.num_workers, scaling.use_gpu) == (2, True)
    assert scaling.resources_per_worker == {"CPU": 3, "GPU": 1.0}
    assert not trainer_of(assignment(), str(tmp_path)).scaling_config.use_gpu


def test_a_worker_that_fails_is_not_started_again_and_says_which_sweep_it_works_for(tmp_path):
    run = trainer_of(assignment(), str(tmp_path)).run_config
    assert (run.failure_config.max_failures, run.failure_config.controller_failure_limit) == (0, 0)
    assert run.worker_runtime_env["env_vars"] == {SAYS: "Governed(s/t1)"}
    assert run.name == "t1-7"


def test_why_workers_do_not_start_is_told_in_one_line(monkeypatch):
    def broken(*_):
        raise ValueError("no room\nat all")

    monkeypatch.setattr("rsi_ray.crew_launch.trainer_of", broken)
    training = Training(assignment())
    training.wait(5)
    assert training.trouble() == "ValueError: no room"


@pytest.mark.parametrize("ended", [True, False])
def test_a_training_that_has_ended_is_trouble(monkeypatch, ended):
    training = Training.__new__(Training)
    training._trouble = ""
    training._thread = type("Thread", (), {"is_alive": lambda _: not ended})()
    assert training.trouble() == ("Ray Train has ended" if ended else "")
