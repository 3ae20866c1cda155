"""What a candidate asks of Ray: cores, and the share of a GPU that its memory needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safety.resources import ALLOWANCE_BYTES

Gpus = float | Literal["auto"]
AUTO: Literal["auto"] = "auto"
MOST_GPUS = 64

CONTEXT_BYTES = 640 * 2**20
"""What CUDA takes of a GPU for each process that uses it: its context, and the kernels that are loaded."""

# Few, since a worker is used again by a trial of the same share only. Each is exact in Ray's four digits, and
# what halves leave free, quarters fill.
SHARES = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)


class TooLarge(ValueError):
    """A candidate that fits on no GPU there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What every trial of a sweep is given.

    Attributes:
        cpus: cores of a trial.
        gpus: GPUs of a trial, or a fraction of one; `auto` for the share that its own memory needs.
        gpu_memory: bytes of the smallest GPU; 0 where it isn't known: `auto` is a whole GPU then.
    """

    cpus: int = 1
    gpus: Gpus = 0.0
    gpu_memory: int = 0

    def placement(self, memory_bytes: int) -> Placement:
        """What a candidate asks for that holds so many bytes while it is trained.

        Raises:
            TooLarge: `auto`, and it needs more than the smallest GPU has.
        """
        if self.gpus != AUTO:
            return Placement(cpus=self.cpus, gpus=self.gpus)
        share = share_of(memory_bytes, self.gpu_memory) if self.gpu_memory else 1.0
        return Placement(cpus=self.cpus, gpus=share)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What one trial asks for.

    Attributes:
        cpus: cores.
        gpus: GPUs, or a fraction of one.
    """

    cpus: int
    gpus: float

    @property
    def bundle(self) -> dict[str, float]:
        """The same in Ray's names."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}


def needed_bytes(memory_bytes: int) -> int:
    """Bytes of a GPU that a process takes whose trial's claim is for so many."""
    return memory_bytes + ALLOWANCE_BYTES + CONTEXT_BYTES


def share_of(memory_bytes: int, gpu_memory: int) -> float:
    """The least of `SHARES` of a GPU that holds a candidate, with what its process takes beside it.

    Args:
        memory_bytes: that the candidate holds while it is trained.
        gpu_memory: bytes of the GPU.

    Raises:
        TooLarge: it needs more than all of it.
    """
    needed = needed_bytes(memory_bytes)
    for share in SHARES:
        if needed <= share * gpu_memory:
            return share
    raise TooLarge(
        f"it needs {needed:,} bytes of a GPU ({memory_bytes:,} for training, the others for its process), "
        f"the smallest one has {gpu_memory:,}"
    )
