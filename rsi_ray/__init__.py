"""Governed architecture search on Ray: what to do next."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsi_ray.api import Sweep
    from rsi_ray.errors import RunError, SweepError
    from rsi_ray.hyperparameters import TrainingChoices
    from rsi_ray.members import Members
    from rsi_ray.recursive_self_improvement import RecursiveSelfImprovement
    from rsi_ray.result import Result
    from rsi_ray.tasks.task import Batch, Task
    from rsi_ray.training import Training

__all__ = [
    "Batch",
    "Members",
    "RecursiveSelfImprovement",
    "Result",
    "RunError",
    "Sweep",
    "SweepError",
    "Task",
    "Training",
    "TrainingChoices",
]

# imported when asked for: tasks and training must not bring Ray with them
_HOMES = {
    "Batch": "rsi_ray.tasks.task",
    "Members": "rsi_ray.members",
    "Result": "rsi_ray.result",
    "RecursiveSelfImprovement": "rsi_ray.recursive_self_improvement",
    "RunError": "rsi_ray.errors",
    "Sweep": "rsi_ray.api",
    "SweepError": "rsi_ray.errors",
    "Task": "rsi_ray.tasks.task",
    "Training": "rsi_ray.training",
    "TrainingChoices": "rsi_ray.hyperparameters",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
