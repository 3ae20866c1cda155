"""Tensors that the first of several processes reads, and the others hear of: a file is at one place only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rsi_ray.tensor_file import ByName


class HeardTensors(ByName):
    """The same in every process of torch's default group; all ask for the same ones in the same order.

    Args:
        read: of the first process; None in the others.
        device: on which the processes exchange tensors.
    """

    def __init__(self, read: Mapping[str, Tensor] | None, device: torch.device) -> None:
        self._read, self._device = read, device
        super().__init__(self._said([*read] if read is not None else None))

    def _had(self, name: str) -> Tensor:
        own = self._read[name].to(self._device) if self._read is not None else None
        shape, dtype = self._said((own.shape, own.dtype) if own is not None else None)
        tensor = torch.empty(shape, dtype=dtype, device=self._device) if own is None else own.contiguous()
        if tensor.numel():
            # as bytes: not every backend knows every type
            dist.broadcast(tensor.view(-1).view(torch.uint8), 0)
        return tensor

    def _said(self, what: Any) -> Any:
        """What the first process says; the others say None."""
        said = [what]
        dist.broadcast_object_list(said, 0, device=self._device)
        return said[0]
