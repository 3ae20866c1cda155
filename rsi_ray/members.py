"""Members of a candidate: one shape, trained with several learning rates and seeds; one stands for all."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from safety.governance import HIGHEST


@dataclass(frozen=True, kw_only=True, slots=True)
class Members:
    """Trainings of one candidate side by side, in one trial and under one lease.

    Every learning rate is trained with every seed, and the same seed is the same first weights and batches
    for each of them.

    Attributes:
        learning_rates: peaks of the schedule; none for the training's own alone.
        seeds: trainings with each learning rate.
        stacked: whether they are trained as one batch, where the model can be; None for where it is faster.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    learning_rates: tuple[float, ...] = ()
    seeds: int = 1
    stacked: bool | None = None

    def __post_init__(self) -> None:
        rates = self.learning_rates
        fine = all(0 < rate < math.inf for rate in rates) and len(set(rates)) == len(rates) != 1
        if not fine:
            raise ValueError(
                f"members.learning_rates: {list(rates)}, expected two or more different numbers over 0; "
                f"a single one is the training's learning_rate"
            )
        if self.seeds < 1:
            raise ValueError(f"members.seeds: {self.seeds}, expected a whole number from 1")

    @property
    def count(self) -> int:
        """Models that are trained."""
        return self.alternatives * self.seeds

    @property
    def alternatives(self) -> int:
        """Learning rates of which the best is taken."""
        return max(1, len(self.learning_rates))


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The member that stands for all, and how those beside it did.

    Attributes:
        learning_rate: its peak.
        seed: which of the seeds it is, from 0.
        lowest, mean, highest: scores of the seeds with this learning rate; NaN where one is.
        highest_domains: per domain, the highest finite score of any member.
    """

    learning_rate: float
    seed: int
    lowest: float
    mean: float
    highest: float
    highest_domains: Mapping[str, float]

    def told(self) -> dict[str, object]:
        """The same as a result tells it."""
        names = ("learning_rate", "seed", "lowest", "mean", "highest")
        return {
            "members": {name: getattr(self, name) for name in names},
            HIGHEST: dict(self.highest_domains),
        }


def member_seed(seed: int, index: int) -> int:
    """Seed of a member: the first has the candidate's own, the others 63 bits that follow from it."""
    if index == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:member {index}".encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Worth:
    """Where a stack is the faster way: from so many members, up to such models and steps of one."""

    count: int
    params: float
    step_flops: float


_WORTH = {
    # measured, see `bench.members`: larger weights and steps no longer fit the caches together
    "cpu": _Worth(count=4, params=80e3, step_flops=200e6),
    # not measured: steps as small as these wait for the launches of their kernels
    "cuda": _Worth(count=2, params=math.inf, step_flops=20e9),
}


STACKED_BYTES = 8
"""Of each parameter of a stack: a gradient before it is at its place, and a copy where it comes transposed.

That is of one tensor at a time, but one may be nearly all of a model."""


def may_stack(members: Members, *, params: int, step_flops: int, device: str) -> bool:
    """Whether members are trained as one batch, if their model can be: as told, or else where it is faster.

    Args:
        members: several; one alone is never stacked.
        params, step_flops, device: see `should_stack`.
    """
    if members.count == 1:
        return False
    if members.stacked is not None:
        return members.stacked
    return should_stack(members.count, params=params, step_flops=step_flops, device=device)


def should_stack(count: int, *, params: int, step_flops: int, device: str) -> bool:
    """Whether so many members are expected to train faster as one batch than one after the other.

    Args:
        count: members.
        params: of one.
        step_flops: FLOPs of one member's training step.
        device: type of the device, such as "cpu".
    """
    worth = _WORTH.get(device)
    if worth is None or count < worth.count:
        return False
    return params <= worth.params and step_flops <= worth.step_flops


def choose(scores: Sequence[float], seeds: int) -> int:
    """Return the member that stands for all: of the best learning rate the seed in the middle.

    A learning rate is worth the median of its seeds, which is, unlike their mean, the score of one of them:
    what is reported is true of the weights that are kept. Of an even number it is the lower of the two in the
    middle. Of equal ones the first is taken, and NaN is less than any score.

    Args:
        scores: of all members, learning rate by learning rate.
        seeds: of each learning rate.
    """
    worth = [-math.inf if math.isnan(score) else score for score in scores]
    groups = [range(start, start + seeds) for start in range(0, len(scores), seeds)]
    middle = [sorted(group, key=worth.__getitem__)[(seeds - 1) // 2] for group in groups]
    return max(middle, key=worth.__getitem__)


def chosen_of(
    members: Members,
    index: int,
    learning_rate: float,
    scores: Sequence[float],
    domains: Iterable[Mapping[str, float]],
) -> Chosen:
    """What is told of the member that was chosen.

    Args:
        members: all of them.
        index: which was chosen.
        learning_rate: of that one.
        scores: of all, learning rate by learning rate.
        domains: score per domain, of all.
    """
    start = index - index % members.seeds
    beside = scores[start : start + members.seeds]
    known = not any(map(math.isnan, beside))
    return Chosen(
        learning_rate=learning_rate,
        seed=index - start,
        lowest=min(beside) if known else math.nan,
        mean=statistics.fmean(beside),
        highest=max(beside) if known else math.nan,
        highest_domains=_highest(domains),
    )


def _highest(domains: Iterable[Mapping[str, float]]) -> dict[str, float]:
    highest: dict[str, float] = {}
    for one in domains:
        for name, score in one.items():
            if math.isfinite(score):
                highest[name] = max(score, highest.get(name, -math.inf))
    return highest
