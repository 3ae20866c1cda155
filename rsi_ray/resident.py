"""Training data that stay on a GPU: a batch is gathered there, from the rows that its task draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsi_ray.device_data import Samples, bytes_of, tensor_on
from rsi_ray.tasks.problems import ProblemDomain
from rsi_ray.tasks.samples import SampleDomain
from rsi_ray.tasks.task import DomainTask, Task
from rsi_ray.tasks.text import TextDomain

RESIDENT_BYTES = 256 * 2**20
"""Data of more bytes stay in the host's memory: each process on a GPU has a copy of its own."""

Gather = Callable[[Tensor], Samples]
Drawn = Callable[[np.random.Generator, int], dict[str, Samples]]


def _copy(values: NDArray[Any], device: torch.device) -> Tensor:
    # some arrays are read-only, which torch doesn't know
    return tensor_on(torch.from_numpy(np.array(values)), device)


def _samples(domain: SampleDomain[Any], device: torch.device) -> Gather:
    inputs, targets = _copy(domain.inputs, device), _copy(domain.targets, device)
    mean, deviation = _copy(domain.mean, device), _copy(domain.deviation, device)
    return lambda rows: Samples(inputs=(inputs[rows].float() - mean) / deviation, targets=targets[rows])


def _problems(domain: ProblemDomain, device: torch.device) -> Gather:
    problems, answers = _copy(domain.problems, device), _copy(domain.answers, device)
    return lambda rows: Samples(inputs=problems[rows].long(), targets=answers[rows])


def _windows(domain: TextDomain, device: torch.device) -> Gather:
    text, offsets = _copy(domain.text, device), torch.arange(domain.head.length + 1, device=device)

    def gather(starts: Tensor) -> Samples:
        windows = text[starts[:, None] + offsets].long()
        return Samples(inputs=windows[:, :-1], targets=windows[:, 1:])

    return gather


# what a domain keeps on a device, and how it gathers; a subclass may draw otherwise, and isn't known
GATHERS: dict[type, Callable[[Any, torch.device], Gather]] = {
    SampleDomain: _samples,
    ProblemDomain: _problems,
    TextDomain: _windows,
}
KEPT: dict[type, tuple[str, ...]] = {
    SampleDomain: ("inputs", "targets", "mean", "deviation"),
    ProblemDomain: ("problems", "answers"),
    TextDomain: ("text",),
}


def training_bytes(task: Task) -> int:
    """Bytes of the training data that stay on a GPU; 0 where they are too many, or not known."""
    domains = _known_domains(task)
    arrays = [getattr(domain, name) for domain in domains for name in KEPT[type(domain)]]
    total = sum(int(array.nbytes) for array in arrays)
    return total if total <= RESIDENT_BYTES else 0


def kept_bytes(task: Task) -> int:
    """Bytes of a GPU that a task takes while a candidate is trained: the hold-out, and training data."""
    return bytes_of(task.holdout()) + training_bytes(task)


def drawn_on(task: Task, device: torch.device) -> Drawn | None:
    """Draws the batches that the task draws, from the same generator; None where data don't stay on a GPU.

    Args:
        task: whose training data are copied, once.
        device: that they are copied to.
    """
    if not training_bytes(task):
        return None
    domains = _known_domains(task)
    gathers = [GATHERS[type(domain)](domain, device) for domain in domains]

    def draw(rng: np.random.Generator, size: int) -> dict[str, Samples]:
        rows: list[NDArray[np.int64]] = [domain.pick(rng, size) for domain in domains]
        parts = zip(domains, gathers, rows, strict=True)
        return {domain.head.name: gather(tensor_on(picked, device)) for domain, gather, picked in parts}

    return draw


def _known_domains(task: Task) -> tuple[Any, ...]:
    domains = task.domains if type(task) is DomainTask else ()
    return domains if all(type(domain) in GATHERS for domain in domains) else ()
