"""The processes that train one candidate together: each takes its share of every batch, DDP or FSDP2."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rsi_ray.device_data import Samples
from rsi_ray.heard_tensors import HeardTensors
from rsi_ray.tasks.task import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingGroup:
    """One process among those that train a candidate; alone by default, and then nothing is exchanged.

    The others are those of torch's default process group. All call the same methods in the same order: most
    of them wait for each other.

    Attributes:
        rank: of this process, from 0.
        workers: processes.
        sharded: whether weights and optimizer state are shared out among them (FSDP2); else each has all
            (DDP).
    """

    rank: int = 0
    workers: int = 1
    sharded: bool = False

    def spread(self, model: nn.Module, device: torch.device) -> nn.Module:
        """What is called to train a model, which all processes have built alike; it is changed in place."""
        return model if self.workers == 1 else _spreading().spread(self, model, device)

    def share(self, batches: Mapping[str, Batch | Samples], rows: int) -> Mapping[str, Batch | Samples]:
        """This process's part of batches of so many rows; the parts differ by one row at most."""
        if self.workers == 1:
            return batches
        mine = slice(rows * self.rank // self.workers, rows * (self.rank + 1) // self.workers)
        return {name: _rows(batch, mine) for name, batch in batches.items()}

    def weighed(self, loss: Tensor, rows: int) -> Tensor:
        """The loss of this process's share, weighed by its rows: the mean of all is the loss of the batch."""
        if self.workers == 1:
            return loss
        mine = rows * (self.rank + 1) // self.workers - rows * self.rank // self.workers
        return loss * (mine * self.workers / rows)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.workers == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.workers

    def agree(self, model: nn.Module) -> None:
        """Give every process the first one's buffers, such as running means of its own share."""
        if self.workers > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def equal_share(self, rows: int) -> slice:
        """This process's part of so many rows; all are equally long, so the last ones may overlap."""
        size = -(-rows // self.workers)
        start = _start(rows, size, self.rank)
        return slice(start, start + size)

    def gathered(self, mine: Tensor, rows: int) -> Tensor:
        """What all processes found on their equal shares, (rows, ...), in the order of the rows."""
        if self.workers == 1:
            return mine
        found = [torch.empty_like(mine) for _ in range(self.workers)]
        dist.all_gather(found, mine.contiguous())
        whole = mine.new_empty((rows, *mine.shape[1:]))
        for rank, part in enumerate(found):
            start = _start(rows, len(part), rank)
            whole[start : start + len(part)] = part
        return whole

    def whole(self, tensor: Tensor) -> Tensor:
        """The tensor itself; of one that is shared out all of it."""
        return _spreading().whole(tensor) if self.sharded else tensor

    def heard(self, read: Mapping[str, Tensor] | None, device: torch.device) -> Mapping[str, Tensor]:
        """What the first process reads, in every one; None in the others."""
        if self.workers > 1:
            return HeardTensors(read, device)
        return read or {}

    def part(self, whole: Tensor, own: Tensor) -> Tensor:
        """What this process puts of a tensor into its own part of it; scalars aren't shared out."""
        return _spreading().part(whole, own) if self.sharded and whole.ndim else whole


def _rows(batch: Any, mine: slice) -> Batch | Samples:
    found: Batch | Samples = replace(batch, inputs=batch.inputs[mine], targets=batch.targets[mine])
    return found


def _start(rows: int, size: int, rank: int) -> int:
    return min(rank * size, rows - size)


def _spreading() -> Any:
    """DDP and FSDP2, which take a second to load: one process alone never needs them."""
    return importlib.import_module("rsi_ray.spreading")


ALONE = TrainingGroup()
