"""Samples as tensors: bit for bit those of the task, and on a GPU by pinned memory."""

import numpy as np
import torch

from rsi_ray.device_data import bytes_of, on_device, tensor_on
from rsi_ray.scoring import EVALUATION_CHUNK, evaluate, rows_at_a_time, scores
from rsi_ray.tasks import breast_cancer_task
from rsi_ray.training import Training
from tests.rsi_ray.test_training_job import CONFIG, job

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TASK = breast_cancer_task()


def test_on_a_cpu_an_array_is_taken_as_it_is():
    array = np.arange(6, dtype=np.float32)
    assert tensor_on(array, CPU).data_ptr() == array.ctypes.data


def test_a_tensor_that_is_on_the_device_stays_where_it_is():
    tensor = torch.zeros(3)
    assert tensor_on(tensor, CPU) is tensor


def test_to_a_gpu_an_array_goes_by_pinned_memory_without_waiting(monkeypatch):
    done = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: done.append("pinned") or tensor)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, device, non_blocking: done.append((device, non_blocking))
    )
    tensor_on(np.zeros(3, dtype=np.float32), GPU)
    assert done == ["pinned", (GPU, True)]


def test_the_bytes_of_batches_are_those_of_their_tensors():
    moved = on_device(TASK.holdout(), CPU).values()
    assert bytes_of(TASK.holdout()) == sum(one.inputs.nbytes + one.targets.nbytes for one in moved)


def test_scores_of_a_hold_out_that_is_on_the_device_are_those_of_the_task_to_the_bit():
    trainer = job(load_task=lambda: breast_cancer_task).trainer(CONFIG)
    kept = on_device(TASK.holdout(), CPU)
    assert scores(trainer.model, kept, CPU) == evaluate(trainer.model, TASK, CPU)


def test_a_trainer_takes_the_hold_out_once():
    taken = []

    class Counted:
        def __getattr__(self, name):
            return getattr(TASK, name)

        def holdout(self):
            taken.append(1)
            return TASK.holdout()

    training = Training(epochs=3, steps_per_epoch=1, batch_size=8)
    trainer = job(load_task=lambda: Counted, training=training).trainer(CONFIG)
    for _ in range(3):
        trainer.run_epoch()
    assert len(taken) == 1


def test_on_a_gpu_an_evaluation_has_no_larger_forward_than_a_step_which_is_what_was_priced():
    assert rows_at_a_time(GPU, 8) == 8
    assert rows_at_a_time(GPU, 4096) == EVALUATION_CHUNK
    assert rows_at_a_time(CPU, 8) == EVALUATION_CHUNK
