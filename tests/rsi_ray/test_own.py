"""A user's own task, as the processes that train and evaluate get it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from rsi_ray.api import Sweep
from rsi_ray.config import parse_config
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from rsi_ray.training_job import TrainingJob
from rsi_ray.wiring import sweep_of
from safety.document import parse_yaml
from search_spaces import MLPSpace
from tests.integration.rising_task import RisingTask

ROOT = Path(__file__).parents[2]
LIMITS = {"bounds": {"max_params": 1e6, "max_flops": 1e9, "max_memory": 1e9}}
OWN = "tests.integration.rising_task"
YAML = f"""\
space: {{kind: "{OWN}:RisingSpace"}}
task: {{kind: "{OWN}:RisingTask"}}
limits: {{bounds: {{max_params: 1e6, max_flops: 1e9, max_memory: 1e9}}}}
"""
LOADS = """
import pickle, sys
import rsi_ray.worker
pickle.load(sys.stdin.buffer).load_task()
print(*sorted({"optuna", "rsi_ray.api", "rsi_ray.wiring"} & set(sys.modules)))
"""


def given() -> TrainingJob:
    task = breast_cancer_task(BreastCancerOptions(holdout_size=64))
    return Sweep(MLPSpace(heads=task.heads, batch_size=8), task, LIMITS).job()


def named() -> TrainingJob:
    return sweep_of(parse_config(parse_yaml(YAML, source="sweep.yaml"), folder=ROOT)).job()


@pytest.mark.parametrize("job", [given, named])
def test_a_worker_loads_a_job_and_its_task_without_what_drives_a_sweep(job):
    done = subprocess.run(
        [sys.executable, "-c", LOADS], input=pickle.dumps(job()), cwd=ROOT, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, b"\n"), done.stderr.decode()


def test_a_named_task_is_made_once_per_process():
    load = named().load_task
    assert isinstance(load(), RisingTask)
    assert load() is load()
