"""What the drivers of a rehearsal propose: candidates that improve within bounds, or run away."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random

from safety.claim import Claim
from safety.limits import Bounds, Budgets, Limits

DOMAIN = "reasoning"
CEILING = 0.95
GFLOP = 10**9
# what no candidate of its own reaches, and the larger ones do with a champion before them
MOST_TRAINED = 41 * GFLOP
# the guide's own simulated runaway: each improvement is 1.6 times the one before
RUNAWAY = 1.6


class Course(Enum):
    """How the candidates of a sweep change from one generation to the next.

    ACCELERATING improves by a growing factor, HUNGRY takes a growing share of the cluster, CREEPING improves
    by less than the rate's ceiling each time; STEADY does none of this.
    """

    ACCELERATING = "accelerating"
    HUNGRY = "hungry"
    CREEPING = "creeping"
    STEADY = "steady"


def limits(workers: int, *, tight: bool) -> Limits:
    """Limits under which so many workers can compute for a while; `tight` ones are soon used up."""
    trials = workers * (3 if tight else 1_000_000)
    return Limits(
        bounds=Bounds(
            max_params=10**6,
            max_flops=10**9,
            max_memory=10**8,
            max_train_flops=MOST_TRAINED,
            max_performance={DOMAIN: CEILING},
        ),
        cluster=Budgets(
            train_flops=trials * 50 * GFLOP,
            trials=trials,
            concurrent_params=workers * (150_000 if tight else 10**6),
            gpu_seconds=trials * 60,
            wall_seconds=trials * 600,
        ),
        sweep=Budgets(trials=max(2, trials // 2)),
    )


def tightened(known: Limits, share: float) -> Limits:
    """The same limits with less for the cluster."""
    budgets = known.cluster.model_dump()
    less = {name: int(cap * share) for name, cap in budgets.items() if cap is not None}
    return known.model_copy(update={"cluster": Budgets(**less)})


@dataclass(slots=True)
class Candidates:
    """The candidates of one sweep.

    Attributes:
        course: how they change.
        rng: where chance comes from.
        champion: score of the best that was promoted.
        gain: relative improvement of the latest candidate.
        generation: how many have been scored.
    """

    course: Course
    rng: Random
    champion: float
    gain: float = 0.02
    generation: int = 0

    @classmethod
    def on(cls, course: Course, rng: Random) -> Candidates:
        """The first ones of a sweep; what creeps begins near the capability's ceiling."""
        return cls(course=course, rng=rng, champion=0.75 if course is Course.CREEPING else 0.2)

    def claim(self) -> Claim:
        """What the next candidate would take."""
        growth = RUNAWAY ** min(self.generation, 50) if self.course is Course.HUNGRY else 1.0
        params = int(self.rng.randint(1_000, 400_000) * growth)
        wall_ms = self.rng.randint(20_000, 120_000)
        return Claim(
            params=params,
            forward_flops=params * 100,
            memory_bytes=params * 16,
            train_flops=int(self.rng.randint(1, 40 * GFLOP) * growth),
            wall_ms=wall_ms,
            gpu_ms=wall_ms * self.rng.randint(0, 1),
            reports=self.rng.randint(1, 6),
        )

    def score(self) -> float:
        """Score of the next candidate that ends."""
        self.generation += 1
        if self.course is Course.ACCELERATING:
            self.gain *= RUNAWAY
            return self.champion * (1 + self.gain)
        if self.course is Course.CREEPING:
            return self.champion * 1.09
        return min(0.9, self.champion * (1 + self.rng.uniform(-0.5, 0.09)))
