"""Metrics of a worker: GPU memory against what was reserved; it loads no more than a worker does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from safety.exporter import Exporter
from safety.metrics import Metric, Sample
from safety.resources import DeviceMemory

METRICS = {
    "rsi_gpu_memory_used_bytes": Metric(
        text="the most that the tensors of a worker's trial took of its GPUs", labels=("sweep",)
    ),
    "rsi_gpu_memory_reserved_bytes": Metric(text="memory that this trial's lease is for", labels=("sweep",)),
}


class ToldMemory:
    """Memory of this process's GPUs, told as a metric when its keeper looks at it; never without a GPU.

    Args:
        memory: what is looked at.
        reserved: bytes that the present trial's lease is for.
        sweep: name of the sweep.
    """

    def __init__(self, memory: DeviceMemory, reserved: Callable[[], int], sweep: str) -> None:
        self._memory, self._reserved, self._sweep = memory, reserved, sweep
        self._grown = 0
        self._exporter = Exporter(METRICS, self._samples)

    def begin(self) -> None:
        """Count anew from what is taken now."""
        self._memory.begin()

    def grown_bytes(self) -> int:
        """The most that it has been more than that; it is told now and then."""
        self._grown = self._memory.grown_bytes()
        self._exporter.tell()
        return self._grown

    def _samples(self) -> Iterator[Sample]:
        labels = {"sweep": self._sweep}
        yield Sample(name="rsi_gpu_memory_used_bytes", value=self._grown, labels=labels)
        yield Sample(name="rsi_gpu_memory_reserved_bytes", value=self._reserved(), labels=labels)
