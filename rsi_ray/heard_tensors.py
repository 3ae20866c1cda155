"""Tensors that the first of several processes reads, and the others hear of: a file is at one place only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class HeardTensors(Mapping[str, Tensor]):
    """The same in every process of torch's default group; all ask for the same ones in the same order.

    Args:
        read: of the first process; None in the others.
        device: on which the processes exchange tensors.
    """

    def __init__(self, read: Mapping[str, Tensor] | None, device: torch.device) -> None:
        self._read, self._device = read, device
        self._names: list[str] = self._said([*read] if read is not None else None)

    def __getitem__(self, name: str) -> Tensor:
        own = self._read[name].to(self._device) if self._read is not None else None
        shape, dtype = self._said((own.shape, own.dtype) if own is not None else None)
        tensor = torch.empty(shape, dtype=dtype, device=self._device) if own is None else own.contiguous()
        if tensor.numel():
            # as bytes: not every backend knows every type
            dist.broadcast(tensor.view(-1).view(torch.uint8), 0)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _said(self, what: Any) -> Any:
        """What the first process says; the others say None."""
        said = [what]
        dist.broadcast_object_list(said, 0, device=self._device)
        return said[0]
