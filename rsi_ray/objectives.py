"""What a sweep optimizes: its score, and costs that are to be small beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import StudyDirection

SCORE = "score"
# by the name that people write: field of a candidate's record
MINIMIZED = {
    "params": "params",
    "forward_flops": "forward_flops",
    "memory": "memory_bytes",
    "latency": "latency_ms",
}


def problems_of_objectives(objectives: Sequence[str]) -> list[str]:
    """What is wrong with a list of objectives, a line for each."""
    problems = [
        f"objectives: {name!r}, expected one of {', '.join([SCORE, *MINIMIZED])}"
        for name in objectives
        if name != SCORE and name not in MINIMIZED
    ]
    if not objectives or objectives[0] != SCORE:
        problems.append(f"objectives: expected {SCORE} as the first one")
    if len(set(objectives)) < len(objectives):
        problems.append("objectives: expected each once")
    return problems


def directions_of(objectives: Sequence[str]) -> list[StudyDirection]:
    """Optuna's direction of each objective."""
    more, less = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    return [more if name == SCORE else less for name in objectives]


def values_of(objectives: Sequence[str], record: Mapping[str, Any]) -> list[float]:
    """Values of a measured candidate, from its record and the claim in it.

    Raises:
        KeyError: the record has no such value.
    """
    known = {**record["claim"], **record}
    return [float(known[name if name == SCORE else MINIMIZED[name]]) for name in objectives]
