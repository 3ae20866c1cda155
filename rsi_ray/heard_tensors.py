"""Tensors that the first of several processes reads, and the others hear of: a file is at one place only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from rsi_ray.tensor_file import ByName, kind, kinds_of


class HeardTensors(ByName):
    """The same in every process of torch's default group; all ask for the same ones in the same order.

    Args:
        read: of the first process; None in the others.
        device: on which the processes exchange tensors.
    """

    def __init__(self, read: Mapping[str, Tensor] | None, device: torch.device) -> None:
        self._read, self._device = read, device
        told = [{name: (one.shape, one.dtype) for name, one in kinds_of(read or {}).items()}]
        dist.broadcast_object_list(told, 0, device=device)
        super().__init__({name: kind(*one) for name, one in told[0].items()})

    def _had(self, name: str) -> Tensor:
        if self._read is None:
            tensor = torch.empty_like(self.kinds[name], device=self._device)
        else:
            tensor = self._read[name].to(self._device).contiguous()
        if tensor.numel():
            # as bytes: not every backend knows every type
            dist.broadcast(tensor.view(-1).view(torch.uint8), 0)
        return tensor
