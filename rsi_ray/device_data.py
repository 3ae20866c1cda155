"""A task's samples on the device that trains: the hold-out once, training batches as they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rsi_ray.tasks.task import Array, Batch


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Samples:
    """A `Batch` as tensors of a device, in its shapes."""

    inputs: Tensor
    targets: Tensor


def tensor_on(values: Array | Tensor, device: torch.device) -> Tensor:
    """The values as a tensor of a device; on a CPU an array's memory is shared, a GPU isn't waited for.

    A copy from pinned memory begins when the GPU has done what it was told before, while this process goes
    on; torch keeps the pinned memory until then.
    """
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def on_device(batches: Mapping[str, Batch], device: torch.device) -> dict[str, Samples]:
    """Batches by head as tensors of a device."""
    return {
        name: Samples(inputs=tensor_on(batch.inputs, device), targets=tensor_on(batch.targets, device))
        for name, batch in batches.items()
    }


def bytes_of(batches: Mapping[str, Batch]) -> int:
    """Bytes of all inputs and targets."""
    return sum(batch.inputs.nbytes + batch.targets.nbytes for batch in batches.values())
