"""What torch takes of the GPUs' memory in this process: a `safety.resources.DeviceMemory`."""

from __future__ import annotations

from collections.abc import Iterator

import torch


class CudaMemory:
    """Tensors of torch's allocator on every GPU that this process sees; not what CUDA has for itself."""

    def __init__(self) -> None:
        self._before = 0

    def begin(self) -> None:
        """Count anew from what is allocated now."""
        for device in _devices():
            torch.cuda.reset_peak_memory_stats(device)
        self._before = sum(torch.cuda.memory_allocated(device) for device in _devices())

    def grown_bytes(self) -> int:
        """The most that was allocated at a time since then, of each GPU, less what was there."""
        return sum(torch.cuda.max_memory_allocated(device) for device in _devices()) - self._before


def _devices() -> Iterator[int]:
    # asked for before, the process would take hundreds of megabytes for CUDA itself
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield from range(torch.cuda.device_count())
