"""One of the processes that train a candidate together: joins the lease, and trains when it is told to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from rsi_ray.crew import Assignment
from rsi_ray.crew_line import Orders
from rsi_ray.cuda_memory import CudaMemory, begin_cuda
from rsi_ray.device_metrics import ToldMemory
from rsi_ray.gpu_check import require_gpu
from rsi_ray.printable import one_line
from rsi_ray.training_group import TrainingGroup
from rsi_ray.training_run import TrainingRun
from safety import KernelTimer, LeaseKeeper
from safety.resources import resident_bytes
from safety.trainable import keeper_of_this_process

# after which a worker that failed fails, whoever has heard of it: more than the trial's process takes to look
LEFT_SECONDS = 30.0


def work(assignment: Assignment, rank: int) -> None:
    """Train as one of several, until the trial's process sends this one away.

    Without that process, or without the lease, this one dies, whatever it does.

    Args:
        assignment: what to train.
        rank: of this process in torch's default process group, which is there already.
    """
    torch.set_num_threads(assignment.placement.cpus)
    orders = Orders(assignment.address, assignment.secret, KernelTimer().throw)
    keeper = _keeper(assignment, orders)
    with _telling(orders):
        orders.answer(rank=rank, pid=os.getpid())
        # data and CUDA are loaded before the lease is joined: under it they would count as the candidate's
        assignment.job.digest()
        require_gpu(assignment.placement.gpus)
        begin_cuda(assignment.job.device)
        orders.answer()
        run = _begun(assignment, orders, keeper, rank)
        orders.answer()
        while (order := orders.next()["order"]) != "end":
            with keeper.computing():
                told = _ORDERS[order](run, orders, rank)
            orders.answer(**told)
    keeper.leave()
    orders.end()


def _keeper(assignment: Assignment, orders: Orders) -> LeaseKeeper:
    keeper: LeaseKeeper
    device = ToldMemory(CudaMemory(), lambda: keeper.grant.claim.memory_bytes, assignment.sweep)
    keeper = keeper_of_this_process(
        assignment.authority, memory=resident_bytes, device=device, led=orders.is_led
    )
    return keeper


def _begun(assignment: Assignment, orders: Orders, keeper: LeaseKeeper, rank: int) -> TrainingRun:
    workers, sharded = assignment.placement.workers, assignment.placement.sharded
    elapsed_ms = orders.next()["elapsed_ms"]
    keeper.join(assignment.grant, elapsed_ms=elapsed_ms, sharers=workers)
    group = TrainingGroup(rank=rank, workers=workers, sharded=sharded)
    with keeper.computing():
        return assignment.job.begin(assignment.config, group)


@contextmanager
def _telling(orders: Orders) -> Iterator[None]:
    """What fails here is told, and fails."""
    try:
        yield
    except Exception as error:
        orders.answer(error=f"{type(error).__name__}: {one_line(error)}")
        # Ray Train kills the others once one has failed: the trial's process is to see first who it was
        orders.wait_to_be_left(LEFT_SECONDS)
        orders.end()
        raise


def _train(run: TrainingRun, _orders: Orders, rank: int) -> dict[str, Any]:
    report = run.next_report()
    return {"report": dict(report)} if rank == 0 else {}


def _send(
    write: Callable[[TrainingRun, BinaryIO | None], None], run: TrainingRun, orders: Orders, rank: int
) -> dict[str, Any]:
    if rank:
        write(run, None)  # all of them gather, the first one sends
    else:
        with orders.sending_file() as file:
            write(run, file)
    return {}


def _receive(
    read: Callable[[TrainingRun, Path | None], None], run: TrainingRun, orders: Orders, rank: int
) -> dict[str, Any]:
    if rank:
        read(run, None)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        orders.receive_file(path)
        read(run, path)
    return {}


def _measure(run: TrainingRun, _orders: Orders, rank: int) -> dict[str, Any]:
    found = run.sealed_scores()
    return {"scored": {name: (one.score, one.error) for name, one in found.items()}} if rank == 0 else {}


_ORDERS: dict[str, Callable[[TrainingRun, Orders, int], dict[str, Any]]] = {
    "train": _train,
    "save": partial(_send, TrainingRun.write_state),
    "export": partial(_send, TrainingRun.write_weights),
    "restore": partial(_receive, TrainingRun.restore),
    "give": partial(_receive, TrainingRun.give),
    "measure": _measure,
}
