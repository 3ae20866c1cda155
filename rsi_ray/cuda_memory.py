"""What torch takes of the GPUs' memory in this process, and what it may take."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from safety.resources import ALLOWANCE_BYTES


class OutOfMemory(RuntimeError):
    """A candidate wanted more of a GPU's memory than was reserved for it; its message is one line."""


class CudaMemory:
    """A `safety.resources.DeviceMemory`: tensors of torch's allocator on every GPU that this process sees.

    What CUDA has for itself is not among them.
    """

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


def allocator_fraction(reserved: int, present: int, total: int) -> float:
    """Share of a GPU's memory that the allocator may take, from 0 to 1.

    Args:
        reserved: bytes that a trial's lease is for; what any process may take comes on top.
        present: bytes that are allocated already, and stay.
        total: bytes of the GPU.
    """
    return min(1.0, (reserved + ALLOWANCE_BYTES + present) / total)


def hold_to(reserved: int, device: torch.device) -> None:
    """Have torch's allocator take no more of a GPU than a trial's lease is for; on a CPU nothing happens.

    What the trial before has left in the allocator is given back first: it would count. The limit is torch's
    alone: what CUDA has for itself is not in it.

    Args:
        reserved: bytes that the lease is for.
        device: where the trial is about to be built; CUDA is initialised, where it is a GPU.
    """
    if device.type != "cuda":
        return
    torch.cuda.empty_cache()
    # a device without a number is the one that Ray Train has chosen, or the only one
    device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    present, (_, total) = torch.cuda.memory_allocated(device), torch.cuda.mem_get_info(device)
    torch.cuda.set_per_process_memory_fraction(allocator_fraction(reserved, present, total), device)


def begin_cuda(device: torch.device) -> None:
    """Have CUDA and its library of products loaded, where the device is a GPU: the process grows by both."""
    if device.type == "cuda":
        square = torch.ones(64, 64, device=device, dtype=torch.bfloat16)
        (square @ square).sum().item()


def give_back() -> None:
    """Give what the allocator keeps of every GPU, and no tensor is in, back to CUDA."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def told(error: torch.OutOfMemoryError, reserved: int) -> str:
    """What a trial that ran out of its GPU's memory is told of, in one line.

    Args:
        error: torch's.
        reserved: bytes that its lease is for.
    """
    wanted = " ".join(str(error).split(" GPU ")[0].split())
    return (
        f"GPU memory: reserved {reserved:,} bytes (and {ALLOWANCE_BYTES:,} that any process may take), gone "
        f"over, or taken by others: {wanted}"
    )


def _devices() -> Iterator[int]:
    # asked for before, the process would take hundreds of megabytes for CUDA itself
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        yield from range(torch.cuda.device_count())
