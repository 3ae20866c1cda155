"""Makes a sweep's objects of its sections: space, task, training, and the sweep itself."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rsi_ray.api import Sweep
from rsi_ray.description import Json, describe, describe_call
from rsi_ray.hyperparameters import TrainingChoices
from rsi_ray.members import Members
from rsi_ray.own import own_class, own_task
from rsi_ray.sections import KIND, OwnSection, options_of, section_of
from rsi_ray.tasks import TASKS, Task
from rsi_ray.training import Training
from safety import Limits, StrictModel
from search_spaces import ConvSpace, Head, ImageHead, MLPSpace, TableHead, TransformerSpace
from search_spaces.tabular import load_table

if TYPE_CHECKING:
    from rsi_ray.config import SweepConfig

OURS: dict[str, tuple[type, type]] = {
    "transformer": (TransformerSpace, Head),
    "conv": (ConvSpace, ImageHead),
    "mlp": (MLPSpace, TableHead),
}
GIVEN = ("heads", "batch_size", "vocab")


class TableSection(StrictModel):
    """A published benchmark table: a candidate is a row, and its training one look-up; there is no task."""

    kind: Literal["table"] = Field(default="table", description="this section")
    path: str = Field(description="parquet file of NAS-Bench-Macro, NAS-Bench-201 or HW-GPT-Bench")


SPACES: dict[str, type[StrictModel]] = {
    **{kind: section_of(kind, cls, hidden=GIVEN) for kind, (cls, _) in OURS.items()},
    "table": TableSection,
}
TASK_SECTIONS = {kind: section_of(kind, options) for kind, (options, _) in TASKS.items()}


def with_paths_from(section: StrictModel, folder: Path) -> StrictModel:
    """A section whose paths begin at a folder, for processes that run elsewhere."""
    values = section.model_dump()
    changes: dict[str, Any] = {}
    if "path" in values:
        changes["path"] = str((folder / values["path"]).absolute())
    if "paths" in values:
        changes["paths"] = [str((folder / path).absolute()) for path in values["paths"]]
    if "dataset" in values and (folder / values["dataset"]).is_dir():
        changes["dataset"] = str((folder / values["dataset"]).absolute())
    return section.model_copy(update=changes)


def sweep_of(config: SweepConfig) -> Sweep:
    """The sweep that a file asks for."""
    asked = config.scheduler
    sweep = Sweep(
        space_of(config),
        None if isinstance(config.space, TableSection) else load_task_of(config),
        limits_of(config),
        name=config.name,
        lineage=config.lineage,
        training=training_of(config),
        hyperparameters=choices_of(config),
        sampler=config.sampler,
        scheduler=asked.kind,
        grace_period=asked.grace_period,
        reduction_factor=asked.reduction_factor,
        interval=asked.interval,
        objectives=config.objectives,
        trials=config.trials,
        concurrent=config.concurrent,
        seconds=config.seconds,
        trial_seconds=config.trial_seconds,
        cpus=config.resources.cpu,
        gpus=config.resources.gpu,
        gpu_memory=config.resources.gpu_memory,
        workers=config.resources.workers,
        strategy=config.resources.strategy,
        baseline=config.baseline,
        warm_start=config.warm_start,
        keep_weights=config.keep_weights,
        checkpoint_bytes=config.checkpoint_bytes,
        checkpoint_seconds=config.checkpoint_seconds,
        max_failures=config.max_failures,
        storage=config.storage,
        artifacts=config.artifacts,
        ledger=config.ledger,
        governor_key=config.governor_key,
        checkpoints=config.checkpoints,
        alerts=config.alerts,
        seed=config.seed,
        about={"config": config.model_dump(mode="json")},
    )
    for params in config.enqueue:
        sweep.enqueue_trial(params)
    return sweep


def training_of(config: SweepConfig) -> Training:
    """How candidates are trained."""
    values = config.training.model_dump()
    return Training(**{**values, "members": Members(**options_of(config.training.members))})


def choices_of(config: SweepConfig) -> TrainingChoices:
    """Hyperparameters that are searched.

    Raises:
        ValueError: the training has one of them already, or one is out of its range.
    """
    choices = TrainingChoices(**options_of(config.hyperparameters))
    choices.check(training_of(config).members)
    return choices


def load_task_of(config: SweepConfig) -> Callable[[], Task]:
    """What gives the task, once per process."""
    section = config.task
    if isinstance(section, OwnSection):
        return partial(own_task, section.kind, json.dumps(section.options, sort_keys=True))
    options, load = TASKS[getattr(section, KIND)]
    return partial(load, options(**options_of(section)))


def space_of(config: SweepConfig) -> Any:
    """The space, with the task's heads.

    Raises:
        ValueError: the space can't be built, or not on this task.
    """
    section = config.space
    if isinstance(section, TableSection):
        return load_table(Path(section.path))
    if isinstance(section, OwnSection):
        cls = own_class(section.kind)
        return cls(**section.options, **_given_to(cls, config))
    given, kind = _given(config), getattr(section, KIND)
    cls, head = OURS[kind]
    for one in given["heads"]:
        if not isinstance(one, head):
            raise ValueError(
                f"kind: {kind} takes a task with a {head.__name__}, the task {getattr(config.task, KIND)} "
                f"gives a {type(one).__name__}"
            )
    return cls(**options_of(section), **given)


def _given(config: SweepConfig) -> dict[str, Any]:
    return {"heads": load_task_of(config)().heads, "batch_size": config.training.batch_size}


def _given_to(cls: Any, config: SweepConfig) -> dict[str, Any]:
    """What a space of a user's own takes beside its options."""
    known = inspect.signature(cls).parameters
    return {name: value for name, value in _given(config).items() if name in known}


def describe_space(config: SweepConfig) -> Json:
    """The space with the task's heads, as a champion's file keeps it; see `description.describe`.

    Raises:
        ValueError: the space can't be built, or not on this task.
    """
    section, space = config.space, space_of(config)
    if not isinstance(section, OwnSection):
        return describe(space)
    return describe_call(section.kind, section.options, _given_to(own_class(section.kind), config))


def limits_of(config: SweepConfig) -> Limits:
    """The limits, which `load_config` has read."""
    if isinstance(config.limits, str):
        raise TypeError("the limits' file was not read")
    return config.limits
