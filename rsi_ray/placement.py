"""What a candidate asks of Ray: cores, the share of a GPU that its memory needs, or several workers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from safety.resources import ALLOWANCE_BYTES

Gpus = float | Literal["auto"]
Workers = int | Literal["auto"]
Strategy = Literal["auto", "ddp", "fsdp2"]
AUTO: Literal["auto"] = "auto"
MOST_WORKERS = 64

MOST_GPUS = 1
"""Of each process that trains a task: it uses no second one. A job that isn't ours may."""

BY_WORKERS = "several GPUs train one candidate by several workers"

CONTEXT_BYTES = 640 * 2**20
"""What CUDA takes of a GPU for each process that uses it: its context, and the kernels that are loaded."""

STATE_BYTES = 16
"""Of each parameter, in float32: weight, gradient, Adam's two moments."""

GATHERED_BYTES = 8
"""Of each parameter, for as long as FSDP2 has it whole: weight and gradient. A model that is one block has
all of them whole at once, so this much is claimed of every model."""

HEAD_BYTES = 256 * 2**20
"""Memory of the host that the process takes which leads a trial's workers and computes nothing itself."""

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
        gpus: of each process: a fraction of one, or whole ones; `auto` for the share that its memory needs.
        gpu_memory: bytes of the smallest GPU; 0 where it isn't known: `auto` is a whole GPU, and one worker,
            then.
        workers: processes that train a trial together, each with these cores and GPUs; `auto` for as many as
            its memory needs.
        strategy: of several workers: each has the whole model (ddp), or a share of it (fsdp2); `auto` for
            ddp where that fits on a GPU.

    Raises:
        ValueError: a number of GPUs that Ray can't give.
    """

    cpus: int = 1
    gpus: Gpus = 0.0
    gpu_memory: int = 0
    workers: Workers = 1
    strategy: Strategy = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.gpus, int | float) and self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus: {self.gpus}, expected a fraction of one, or whole ones")

    @property
    def asks_for_gpu_memory(self) -> bool:
        """Whether a trial's placement depends on how large a GPU is."""
        chosen = self.workers == AUTO or (self.workers > 1 and self.strategy == AUTO)
        return self.gpus == AUTO or (bool(self.gpus) and chosen)

    def placement(self, memory_bytes: int, *, params: int = 0, rows: int = 1, whole: int = 0) -> Placement:
        """What a candidate asks for.

        Args:
            memory_bytes: that it holds while one process trains it.
            params: its parameters.
            rows: samples of a batch, of which every worker takes at least one.
            whole: bytes among these that every worker holds.

        Raises:
            TooLarge: `auto`, and it needs more than the smallest GPU has.
            ValueError: there are more workers than samples.
        """
        if self.workers != AUTO and self.workers > rows and self.workers > 1:
            raise ValueError(f"workers: {self.workers}, expected at most the {rows} samples of a batch")
        known = self.gpu_memory if self.gpus else 0
        if self.workers == 1 or (self.workers == AUTO and not known):
            return Placement(cpus=self.cpus, gpus=self._share(memory_bytes))
        gpus = 1.0 if self.gpus == AUTO else self.gpus
        counts = range(1, min(rows, MOST_WORKERS) + 1) if self.workers == AUTO else (self.workers,)
        sharded = {"ddp": (False,), "fsdp2": (True,), "auto": (False, True)}[self.strategy]
        tried = [
            Placement(cpus=self.cpus, gpus=gpus, workers=count, sharded=one and count > 1)
            for count in counts
            for one in sharded
        ]
        if self.workers != AUTO and (len(tried) == 1 or not known):
            return tried[0]
        for placement in tried:
            each = placement.worker_bytes(memory_bytes, params=params, rows=rows, whole=whole)
            if needed_bytes(each) <= known * min(1.0, gpus):
                return placement if placement.workers > 1 else replace(placement, gpus=self._share(each))
        raise TooLarge(
            f"it needs {needed_bytes(memory_bytes):,} bytes of one GPU, and too much of each of "
            f"{tried[-1].workers}; the smallest one has {known:,}"
        )

    def _share(self, memory_bytes: int) -> float:
        if self.gpus != AUTO:
            return self.gpus
        return share_of(memory_bytes, self.gpu_memory) if self.gpu_memory else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What one trial asks for.

    Attributes:
        cpus: cores of each worker.
        gpus: GPUs of each worker, or a fraction of one.
        workers: processes that train it together; one is the trial's own.
        sharded: whether they share weights and optimizer state out among them (FSDP2); each has all else.
    """

    cpus: int
    gpus: float
    workers: int = 1
    sharded: bool = False

    @property
    def bundle(self) -> dict[str, float]:
        """What one worker takes, in Ray's names."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}

    @property
    def head(self) -> dict[str, float]:
        """What the trial's own process takes: next to nothing where its workers are others."""
        return self.bundle if self.workers == 1 else {"memory": HEAD_BYTES}

    def worker_bytes(self, memory_bytes: int, *, params: int, rows: int, whole: int = 0) -> int:
        """The most that each worker holds of a candidate; what all of them hold is as many times that.

        Replicas (DDP) have the whole state each; shards (FSDP2) their part of it, and `GATHERED_BYTES` of
        every parameter. What a batch keeps for the backward goes by the largest share of its samples.

        Args:
            memory_bytes: that it holds while one process trains it.
            params: its parameters.
            rows: samples of a batch.
            whole: bytes among these that every worker holds, whatever it shares out.
        """
        if self.workers == 1:
            return memory_bytes
        shared = max(0, memory_bytes - whole)
        state = min(STATE_BYTES * params, shared)
        kept = -(-(shared - state) * -(-rows // self.workers) // rows)
        if not self.sharded:
            return whole + state + kept
        return whole + -(-state // self.workers) + GATHERED_BYTES * params + kept


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
