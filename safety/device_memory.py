"""How a worker finds what tells its GPUs' memory: with the library that takes it, as a meter is found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from safety.meter import installed, made_from, when_imported
from safety.resources import DeviceMemory

# each entry point is named like the library that takes the memory: `torch = "module:Class"`
GROUP = "safety.device_memories"
BUILT_IN = (("torch", "rsi_ray.cuda_memory:CudaMemory"),)


def found_device_memories() -> tuple[tuple[str, str], ...]:
    """(library, `module:Class`) of whatever is installed that tells."""
    return installed(GROUP) or BUILT_IN


class DeviceMemories:
    """Several of them together, each made when its library is imported: before, it has taken nothing.

    Args:
        makers: (library, `module:Class`) of each.
    """

    def __init__(self, makers: Sequence[tuple[str, str]]) -> None:
        self._memories: list[DeviceMemory] = []
        for library, path in makers:
            when_imported(library, partial(self._add, path))

    def _add(self, path: str) -> None:
        memory: DeviceMemory = made_from(path)
        memory.begin()  # what an import takes isn't the trial's
        self._memories.append(memory)

    def begin(self) -> None:
        """Count anew from what is taken now."""
        for memory in self._memories:
            memory.begin()

    def grown_bytes(self) -> int:
        """The most that it has been more than that."""
        return sum(memory.grown_bytes() for memory in self._memories)
