"""Training data on a device: the same batches as the task's own, bit for bit."""

from functools import partial

import numpy as np
import pytest
import torch

from rsi_ray import resident
from rsi_ray.device_data import bytes_of
from rsi_ray.placement import Resources
from rsi_ray.resident import GATHERS, KEPT, drawn_on, kept_bytes, training_bytes
from rsi_ray.tasks import BuiltInOptions, DigitsOptions, breast_cancer_task, built_in_task, digits_task
from rsi_ray.tasks.task import DomainTask
from tests.rsi_ray.test_training_job import CONFIG, job

CPU = torch.device("cpu")
TASKS = {
    "samples": digits_task(DigitsOptions()),
    "rows": breast_cancer_task(),
    "text and problems": built_in_task(BuiltInOptions(holdout_size=16)),
}


@pytest.mark.parametrize("name", TASKS)
def test_batches_are_those_of_the_task_to_the_bit(name):
    task = TASKS[name]
    draw, one, other = drawn_on(task, CPU), np.random.default_rng(5), np.random.default_rng(5)
    for size in (7, 32):
        found, expected = draw(one, size), task.batch(other, size)
        assert list(found) == list(expected)
        for head, batch in expected.items():
            for part in ("inputs", "targets"):
                given = getattr(found[head], part).numpy()
                assert given.dtype == getattr(batch, part).dtype
                assert np.array_equal(given, getattr(batch, part))


def test_every_kind_of_domain_that_is_gathered_tells_what_it_keeps():
    assert GATHERS.keys() == KEPT.keys()


@pytest.mark.parametrize("name", TASKS)
def test_the_bytes_are_those_of_the_arrays_and_of_the_hold_out(name):
    task = TASKS[name]
    arrays = [getattr(domain, kept) for domain in task.domains for kept in KEPT[type(domain)]]
    assert training_bytes(task) == sum(array.nbytes for array in arrays) > 0
    assert kept_bytes(task) == training_bytes(task) + bytes_of(task.holdout())


def test_too_many_data_stay_in_the_hosts_memory(monkeypatch):
    task = TASKS["rows"]
    monkeypatch.setattr(resident, "RESIDENT_BYTES", training_bytes(task))
    assert drawn_on(task, CPU)
    monkeypatch.setattr(resident, "RESIDENT_BYTES", training_bytes(task) - 1)
    assert training_bytes(task) == 0
    assert drawn_on(task, CPU) is None
    assert kept_bytes(task) == bytes_of(task.holdout())


def test_a_task_or_a_domain_of_ones_own_draws_its_batches_itself():
    class Own(DomainTask):
        pass

    class OwnDomain:
        head = TASKS["rows"].heads[0]
        digest = ""

    assert drawn_on(Own(TASKS["rows"].domains, holdout_size=16), CPU) is None
    assert drawn_on(DomainTask([OwnDomain()], holdout_size=16), CPU) is None


def test_on_a_cpu_a_trainer_draws_from_the_task(monkeypatch):
    monkeypatch.setattr("rsi_ray.train.drawn_on", lambda task, device: pytest.fail("it copied the data"))
    task = breast_cancer_task()
    assert job(load_task=lambda: lambda: task).trainer(CONFIG)._draw == task.batch


def test_a_training_on_gathered_batches_is_the_same_to_the_bit():
    one, other = (job(load_task=lambda: breast_cancer_task).trainer(CONFIG) for _ in range(2))
    other._draw = drawn_on(breast_cancer_task(), CPU)
    assert one.run_epoch() == other.run_epoch()


def test_what_stays_on_a_gpu_is_in_its_claim():
    load = partial(job, load_task=lambda: breast_cancer_task)
    claimed, without = load(resources=Resources(gpus=1.0)).price(CONFIG), load().price(CONFIG)
    assert claimed.memory_bytes == without.memory_bytes + 2 * claimed.params + kept_bytes(
        breast_cancer_task()
    )
