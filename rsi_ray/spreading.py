"""A model over several processes: replicas (DDP), or shards of its weights and optimizer state (FSDP2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from rsi_ray.training_group import TrainingGroup


def spread(group: TrainingGroup, model: nn.Module, device: torch.device) -> nn.Module:
    """What is called to train the model, which is changed in place.

    DDP (Li et al., "PyTorch Distributed", 2020) averages the gradients. FSDP2 (`fully_shard`, after Zhao et
    al., "PyTorch FSDP", 2023) keeps a share of each tensor, and gathers the blocks of a list one by one.

    Args:
        group: of the processes.
        model: on the CPU where it is sharded, and on the device else; the same in every process.
        device: where it is trained.
    """
    if not group.sharded:
        return DistributedDataParallel(model, gradient_as_bucket_view=True)
    mesh = init_device_mesh(device.type, (group.workers,))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The modules of lists, none within another one; what they have in common with others stays whole."""
    found: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and not any(module in one.modules() for one in found):
            found += [block for block in module if _is_by_itself(block, model)]
    return found


def _is_by_itself(block: nn.Module, model: nn.Module) -> bool:
    own = {id(parameter) for parameter in block.parameters()}
    uses = [id(one) for _, one in model.named_parameters(remove_duplicate=False) if id(one) in own]
    inside = [id(one) for _, one in block.named_parameters(remove_duplicate=False)]
    return bool(own) and len(uses) == len(inside)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is shared out; every process waits for the others."""
    if not isinstance(tensor, DTensor):
        return tensor
    full: Tensor = tensor.full_tensor()
    return full.detach()


def part(tensor: Tensor, own: Tensor) -> Tensor:
    """This process's part of a tensor that every process has, as its own is placed."""
    if not isinstance(own, DTensor):
        return tensor
    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements, src_data_rank=None)
