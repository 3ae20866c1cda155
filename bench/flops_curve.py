"""The best score of a search so far, against the training FLOPs that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A report of a candidate.

    Attributes:
        score: on the hold-out.
        searched: FLOPs that the whole search has computed by then.
        path: those of this candidate alone, and of the champions that it comes from.
        seconds: time of training by then, summed over the processes.
    """

    score: float
    searched: int
    path: int
    seconds: float


@dataclass(kw_only=True, slots=True)
class Curve:
    """What a search has computed, report by report in the order in which they came."""

    points: list[Point] = field(default_factory=list)

    @property
    def searched(self) -> int:
        """FLOPs of all training and all evaluations so far."""
        return self.points[-1].searched if self.points else 0

    @property
    def seconds(self) -> float:
        """Time of training so far."""
        return self.points[-1].seconds if self.points else 0.0

    def add(self, score: float, flops: int, path: int, seconds: float) -> None:
        """Take a report that took so many FLOPs and seconds more."""
        searched, spent = self.searched + flops, self.seconds + seconds
        self.points.append(Point(score=score, searched=searched, path=path, seconds=spent))


def best_of(points: Sequence[Point]) -> float:
    """The best score of all."""
    return max(point.score for point in points)


def reaching(points: Sequence[Point], score: float) -> Point:
    """The first report that has at least this score, which one of them has."""
    return next(point for point in points if point.score >= score)


def shortest(points: Sequence[Point], score: float) -> int:
    """Fewest FLOPs of a candidate and its ancestors that has at least this score."""
    return min(point.path for point in points if point.score >= score)
