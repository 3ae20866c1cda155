"""What a trial asks for, what it used, and which budgets that touches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeGuard

from safety.document import FLOPS_PER_GFLOP, MAX_FLOPS, MAX_SIZE

TRAIN_GFLOP = "train_gflop"
TRIALS = "trials"
CONCURRENT_PARAMS = "concurrent_params"
GPU_MS = "gpu_ms"
WALL_MS = "wall_ms"
# amounts of a claim that are used up, by their names
USED = ("train_flops", "wall_ms", "gpu_ms", "reports")
RESOURCES = (TRAIN_GFLOP, TRIALS, CONCURRENT_PARAMS, GPU_MS, WALL_MS)


# a training's FLOPs are counted exactly, and held in GFLOP, which fit into 64 bits
_MOST = {"train_flops": MAX_FLOPS, "ancestor_flops": MAX_FLOPS}


def is_amount(name: str, value: object) -> TypeGuard[int]:
    """Whether a value is an int (no bool, no float) from 0 to 2^62, or to as many GFLOP of training."""
    return type(value) is int and 0 <= value <= _MOST.get(name, MAX_SIZE)


def gflop(flops: int) -> int:
    """FLOPs in GFLOP, rounded up."""
    return -(-flops // FLOPS_PER_GFLOP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What one trial would take, whole.

    Attributes:
        params: trainable parameters.
        forward_flops: FLOPs of one forward pass of one sample.
        memory_bytes: bytes held while training.
        train_flops: FLOPs of everything that the trial computes, from its first to its last report.
        wall_ms: longest time that it may run.
        gpu_ms: longest GPU time that it may use.
        reports: reports that it will make; train_flops is spread evenly over them.
        ancestor_flops: FLOPs of the trainings of all whose weights it inherits; no budget is charged again.
        models: that it trains or evaluates one after the other; train_flops is of all of them.
        members: models of these parameters that it trains at a time; memory_bytes and train_flops are of all
            of them.
    """

    params: int
    forward_flops: int
    memory_bytes: int
    train_flops: int
    wall_ms: int
    gpu_ms: int = 0
    reports: int = 1
    ancestor_flops: int = 0
    models: int = 1
    members: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no exact 64-bit amount: a claim is arithmetic, so that is a fault."""
        for name in _FIELDS:
            value = getattr(self, name)
            if not is_amount(name, value):
                most = "2^62 x 10^9" if name in _MOST else "2^62"
                raise ValueError(f"{name}: expected a whole number from 0 to {most}, found {value!r}")
        if self.reports == 0:
            raise ValueError("reports: expected at least 1, found 0")
        if not 1 <= self.models <= self.reports:
            raise ValueError(f"models: expected 1 to as many as reports, {self.reports}, found {self.models}")
        if self.members == 0 or not is_amount("params", self.members * self.params):
            raise ValueError(
                f"members: expected at least 1, with up to 2^62 parameters together, found {self.members} of "
                f"{self.params:,}"
            )

    @property
    def lineage_flops(self) -> int:
        """FLOPs of all training that one of its models has in it, its ancestors' included; rounded up."""
        return self.ancestor_flops - (-self.train_flops // self.models)

    def charges(self) -> dict[str, int]:
        """Amount to hold of each resource; GFLOP are rounded up."""
        return {
            TRAIN_GFLOP: gflop(self.train_flops),
            TRIALS: 1,
            CONCURRENT_PARAMS: self.members * self.params,
            GPU_MS: self.gpu_ms,
            WALL_MS: self.wall_ms,
        }

    def counted(self, reports: int) -> int:
        """Reports to charge where so many were made: a claim for one is for however many there are."""
        return min(reports, 1) if self.reports == 1 else reports

    def used(self, *, reports: int, elapsed_ms: int) -> Usage:
        """What so many reports use by the arithmetic, and so much time: GPUs for as long as it ran."""
        return Usage(
            train_flops=self.train_flops * reports // self.reports,
            wall_ms=elapsed_ms,
            gpu_ms=self.gpu_ms * elapsed_ms // max(1, self.wall_ms),
            reports=reports,
        )

    def as_dict(self) -> dict[str, int]:
        """Fields by name, for storage."""
        return {name: getattr(self, name) for name in _FIELDS}


_FIELDS = tuple(field.name for field in fields(Claim))


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a trial has used so far, as its worker tells it; it may be anything.

    Attributes:
        train_flops: FLOPs computed.
        wall_ms: time since its lease began.
        gpu_ms: GPU time.
        reports: reports made under this lease.
        lease: number of the lease; 0 where it isn't told.
    """

    train_flops: int = 0
    wall_ms: int = 0
    gpu_ms: int = 0
    reports: int = 0
    lease: int = 0

    def credible(self, claim: Claim) -> Usage:
        """The same, but the whole claim where what is told is no amount: negative, NaN, a text."""
        told = {name: getattr(self, name) for name in USED}
        believed = {
            name: value if is_amount(name, value) else getattr(claim, name) for name, value in told.items()
        }
        return replace(self, **believed)

    def at_least(self, other: Usage) -> Usage:
        """The larger amount of both, each by itself."""
        return replace(self, **{name: max(getattr(self, name), getattr(other, name)) for name in USED})

    def charges(self, claim: Claim) -> dict[str, int]:
        """Amount to spend of each resource; less FLOPs than the arithmetic says are not believed."""
        told = self.credible(claim)
        arithmetic = -(-claim.train_flops * told.reports // claim.reports)
        return {
            TRAIN_GFLOP: min(gflop(max(told.train_flops, arithmetic)), MAX_SIZE),
            TRIALS: 1,
            CONCURRENT_PARAMS: 0,
            GPU_MS: told.gpu_ms,
            WALL_MS: told.wall_ms,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What the built model really has, counted by the worker before it trains.

    Attributes:
        params: numbers in its parameters.
        forward_flops: FLOPs of one forward pass of one sample; None where they can't be counted.
        reason: why they can't be.
    """

    params: int
    forward_flops: int | None
    reason: str = ""
