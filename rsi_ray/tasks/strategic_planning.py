"""The domain `strategic_planning`: the first move of the shortest path through a small maze."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rsi_ray.tasks.problems import ProblemDomain, problem_domain
from search_spaces.transformer import Head

MOVES = ("up", "right", "down", "left")
"""The answers, by class id."""

WALL_SHARE = 0.3
UNREACHED = 127


def strategic_planning(
    *, side: int, problems: int, holdout_size: int, rng: np.random.Generator
) -> ProblemDomain:
    """Find the one best first move from S to G, past walls `#`.

    A problem is the maze row by row and a `?`, the place of the answer: side * side + 1 bytes.

    Args:
        side: cells per row and per column.
        problems: mazes generated; only those with exactly one best first move are kept.
        holdout_size: hold-out samples, and as many that are sealed.
        rng: the source of walls, starts and goals.

    Raises:
        ValueError: too few distinct mazes for the hold-out.
    """
    free, start, goal = _mazes(rng, side, problems)
    best = _best_moves(_distances(free, goal, side + 2), start, side + 2)
    kept = best.sum(axis=1) == 1
    texts = _written(free, start, goal, side)[kept]
    head = Head(name="strategic_planning", classes=len(MOVES), length=side * side + 1, dense=False)
    answers = best[kept].argmax(axis=1)
    return problem_domain(head, texts, answers, holdout_size=holdout_size, rng=rng)


def _mazes(
    rng: np.random.Generator, side: int, count: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Draw mazes with a border of wall: free cells (count, (side + 2)^2), start and goal (count,)."""
    width = side + 2
    cells = np.zeros((count, width, width), dtype=bool)
    cells[:, 1:-1, 1:-1] = rng.random((count, side, side)) >= WALL_SHARE
    free = cells.reshape(count, -1)
    inside = np.arange(width * width).reshape(width, width)[1:-1, 1:-1].ravel()
    start = rng.integers(len(inside), size=count)
    goal = (start + rng.integers(1, len(inside), size=count)) % len(inside)
    rows = np.arange(count)
    free[rows, inside[start]] = free[rows, inside[goal]] = True
    return free, inside[start], inside[goal]


def _steps(width: int) -> tuple[int, int, int, int]:
    """Return how each of MOVES changes the index of a cell."""
    return -width, 1, width, -1


def _distances(free: NDArray[np.bool_], goal: NDArray[np.int64], width: int) -> NDArray[np.int8]:
    """Search breadth-first from every goal at once: steps to the goal, UNREACHED where there is no way."""
    distance = np.full(free.shape, UNREACHED, dtype=np.int8)
    frontier = np.zeros_like(free)
    frontier[np.arange(len(free)), goal] = True
    unvisited = free.copy()
    for steps in range(UNREACHED):
        distance[frontier] = steps
        unvisited &= ~frontier
        # The border is wall, so that a roll never carries a frontier round the edge into a free cell.
        spread = [np.roll(frontier, step, axis=1) for step in _steps(width)]
        frontier = np.logical_or.reduce(spread) & unvisited
        if not frontier.any():
            break
    return distance


def _best_moves(distance: NDArray[np.int8], start: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Mark the moves that lead one step nearer to the goal: (count, 4), all False where there is no way."""
    rows = np.arange(len(start))
    after = np.stack([distance[rows, start + step] for step in _steps(width)], axis=1)
    here = distance[rows, start]
    nearer: NDArray[np.bool_] = (after == here[:, None] - 1) & (here < UNREACHED)[:, None]
    return nearer


def _written(
    free: NDArray[np.bool_], start: NDArray[np.int64], goal: NDArray[np.int64], side: int
) -> NDArray[np.uint8]:
    """Write the mazes as ASCII: (count, side * side + 1)."""
    cells = np.where(free, ord("."), ord("#")).astype(np.uint8)
    rows = np.arange(len(free))
    cells[rows, start] = ord("S")
    cells[rows, goal] = ord("G")
    inside = cells.reshape(-1, side + 2, side + 2)[:, 1:-1, 1:-1].reshape(len(free), -1)
    return np.pad(inside, ((0, 0), (0, 1)), constant_values=ord("?"))
