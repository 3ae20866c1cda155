"""Tasks: what candidates learn from and are scored on."""

from rsi_ray.tasks.built_in import BuiltInOptions, BuiltInTask, built_in_task
from rsi_ray.tasks.task import Batch, Domain, Task

__all__ = ["Batch", "BuiltInOptions", "BuiltInTask", "Domain", "Task", "built_in_task"]
