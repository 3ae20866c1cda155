"""The processes that train one candidate together: each takes its share of every batch, DDP or FSDP2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from rsi_ray.tasks.task import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingGroup:
    """One process among those that train a candidate; alone by default, and then nothing is exchanged.

    The others are those of torch's default process group. All call the same methods in the same order: most
    of them wait for each other.

    Attributes:
        rank: of this process, from 0.
        workers: processes.
        sharded: whether weights and optimizer state are spread over them (FSDP2); else each has all (DDP).
    """

    rank: int = 0
    workers: int = 1
    sharded: bool = False

    def spread(self, model: nn.Module, device: torch.device) -> nn.Module:
        """What is called to train a model, which is the same in every process; it is changed in place.

        DDP (Li et al., "PyTorch Distributed", 2020) averages the gradients. FSDP2 (`fully_shard`, after Zhao
        et al., "PyTorch FSDP", 2023) keeps a share of each tensor; the blocks of a list are gathered one by
        one, so what two blocks tie must lie outside of lists.
        """
        if self.workers == 1:
            return model
        if not self.sharded:
            model.to(device)
            # identical from the start, and no module here has buffers that training changes
            return DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)
        mesh = init_device_mesh(device.type, (self.workers,))
        for blocks in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
            for block in blocks:
                if any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    def share(self, batches: Mapping[str, Batch], rows: int) -> dict[str, Batch]:
        """This process's part of batches of so many rows; the parts differ by one row at most."""
        return self._part(batches, rows * self.rank // self.workers, rows * (self.rank + 1) // self.workers)

    def weighed(self, loss: Tensor, rows: int) -> Tensor:
        """The loss of this process's share, by its number of rows: the mean over all is the batch's loss."""
        mine = rows * (self.rank + 1) // self.workers - rows * self.rank // self.workers
        return loss if self.workers == 1 else loss * (mine * self.workers / rows)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.workers > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.workers
        return value

    def equal_share(self, batch: Batch) -> Batch:
        """This process's part of a hold-out; all are equally long, so that the last ones may overlap."""
        rows = len(batch.inputs)
        size = -(-rows // self.workers)
        start = self._start(rows, size, self.rank)
        return replace(batch, inputs=batch.inputs[start : start + size])

    def gathered(self, mine: Tensor, rows: int) -> Tensor:
        """What all processes found on their equal shares, (rows, ...), in the order of the rows."""
        if self.workers == 1:
            return mine
        found = [torch.empty_like(mine) for _ in range(self.workers)]
        dist.all_gather(found, mine.contiguous())
        whole = mine.new_empty((rows, *mine.shape[1:]))
        for rank, part in enumerate(found):
            start = self._start(rows, len(mine), rank)
            whole[start : start + len(mine)] = part
        return whole

    def whole(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor as if this process had it alone, contiguous; of a shard on the CPU."""
        if isinstance(tensor, DTensor):
            return tensor.detach().full_tensor().cpu().contiguous()
        return tensor.detach().clone().contiguous()

    @staticmethod
    def _start(rows: int, size: int, rank: int) -> int:
        return min(rank * size, rows - size)

    @staticmethod
    def _part(batches: Mapping[str, Batch], start: int, stop: int) -> dict[str, Batch]:
        return {
            name: replace(batch, inputs=batch.inputs[start:stop], targets=batch.targets[start:stop])
            for name, batch in batches.items()
        }


def as_shard(whole: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that every process has, where it is to be put into a shard."""
    if not isinstance(like, DTensor):
        return whole
    placed = whole.to(like.device)
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)


ALONE = TrainingGroup()
