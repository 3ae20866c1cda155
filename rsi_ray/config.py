"""The YAML file of a sweep, parsed once."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from rsi_ray.job import TrainingJob
from rsi_ray.tasks.built_in import BuiltInOptions, built_in_task
from rsi_ray.train import Training
from safety import Document, DocumentError, Limits, StrictModel, limits_from_yaml, read_yaml, validate
from safety.document import whole_number
from search_spaces.given_trial import spec_from
from search_spaces.transformer import FfnKind, Norm, Position, TransformerSpace

Count = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=1_000_000)]
Seed = Annotated[int, BeforeValidator(whole_number), Field(le=2**32 - 1)]
Positive = Annotated[float, Field(gt=0)]
Span = Annotated[list[Count], Field(min_length=2, max_length=2)]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?\Z", re.IGNORECASE)


class SpaceConfig(StrictModel):
    """The architectures that may be proposed."""

    kind: Literal["transformer"] = Field(default="transformer", description="kind of model")
    depth: Span = Field(default=[1, 6], description="fewest and most layers")
    widths: list[Count] = Field(default=[32, 64, 96, 128], description="widths of the residual stream")
    head_sizes: list[Count] = Field(default=[16, 32], description="channels of one attention head")
    kv_groups: list[Count] = Field(default=[1, 2], description="query heads per key-value head")
    ffn_ratio: Span = Field(default=[1, 4], description="least and most FFN width, in widths")
    ffn_kinds: list[FfnKind] = Field(default=["gelu", "swiglu"], description="kinds of FFN")
    norms: list[Norm] = Field(default=["layernorm", "rmsnorm"], description="kinds of norm")
    positions: list[Position] = Field(default=["learned", "rotary"], description="positional encodings")
    tied: list[bool] = Field(default=[True, False], description="embedding shared with the byte heads or not")


class TaskConfig(StrictModel):
    """What candidates learn and are scored on."""

    kind: Literal["built_in"] = Field(
        default="built_in",
        description="language, code generation, reasoning and planning from every Python installation",
    )
    text_length: Count = Field(default=16, description="bytes per sample of text")
    holdout_size: Count = Field(default=256, description="hold-out samples per domain")
    seed: Seed = Field(default=0, description="of the generated problems")


class TrainingConfig(StrictModel):
    """How every candidate is trained."""

    epochs: Count = Field(default=9, description="reports of a full training")
    steps_per_epoch: Count = Field(default=30, description="optimizer steps between two reports")
    batch_size: Count = Field(default=32, description="samples per head and step")
    learning_rate: Positive = Field(default=3e-3, description="peak of the schedule")
    warmup_steps: Annotated[int, BeforeValidator(whole_number)] = Field(
        default=20, description="steps of linear rise to the peak"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.01, description="AdamW's, on matrices")


class SchedulerConfig(StrictModel):
    """Which trials are stopped early."""

    kind: Literal["asha", "fifo"] = Field(default="asha", description="asha stops early, fifo never")
    grace_period: Count = Field(default=1, description="reports that every trial makes")
    reduction_factor: Annotated[int, Field(ge=2)] = Field(default=3, description="one in so many goes on")


class ResourcesConfig(StrictModel):
    """What one trial gets."""

    cpu: Count = Field(default=1, description="CPU cores, and threads, of a trial")
    gpu: Annotated[float, Field(ge=0, le=64)] = Field(
        default=0, description="GPUs of a trial; 0.5 packs two on one"
    )


class SweepConfig(StrictModel):
    """One governed sweep."""

    name: str = Field(default="sweep", description="of the runs; each adds its time")
    seed: Seed = Field(default=0, description="of sampler and candidates")
    trials: Count = Field(default=24, description="candidates that are trained, the baseline included")
    concurrent: Count | None = Field(default=None, description="trials at a time; as many as fit if left out")
    trial_seconds: Count = Field(default=600, description="longest time of one trial, seconds")
    sampler: Literal["tpe", "random"] = Field(default="tpe", description="Optuna sampler that proposes")
    keep_weights: Annotated[int, BeforeValidator(whole_number)] = Field(
        default=3, description="best candidates whose weights are kept"
    )
    storage: str = Field(default="rsi_results", description="folder of all runs")
    ledger: str | None = Field(
        default=None, description="SQLAlchemy URL of the ledger; ledger.db in the storage if left out"
    )
    space: SpaceConfig = Field(default_factory=SpaceConfig, description="what may be proposed")
    task: TaskConfig = Field(default_factory=TaskConfig, description="what is learned")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="how it is trained")
    scheduler: SchedulerConfig = Field(default_factory=SchedulerConfig, description="what is stopped early")
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig, description="what a trial gets")
    baseline: dict[str, Any] | None = Field(
        default=None, description="a candidate's parameters, trained first and alone, to compare with"
    )
    limits: Limits | str = Field(description="the limits, or the path of a YAML file that holds them")

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.match(name) or _RESERVED.match(name):
            raise ValueError(
                "expected 1 to 63 letters, digits, '.', '_' or '-', beginning with one of the first two"
            )
        return name


def load_config(path: Path | None) -> SweepConfig:
    """Read a sweep's file, the built-in job's where none is given; limits named by path are read too.

    Raises:
        DocumentError: one line with the file, the line, the field and what was expected.
    """
    if path is None:
        with resources.as_file(built_in_config()) as built_in:
            document = read_yaml(built_in)
    else:
        document = read_yaml(path)
    config = parse_config(document)
    if isinstance(config.limits, str):
        folder = path.parent if path else Path()
        config = config.model_copy(update={"limits": limits_from_yaml(folder / config.limits)})
    return config


def built_in_config() -> Any:
    """The built-in job's file, as a package resource."""
    return resources.files("rsi_ray") / "built_in.yaml"


def parse_config(document: Document) -> SweepConfig:
    """Parse a document into a config, and check that its parts can be built.

    Raises:
        DocumentError: see `load_config`.
    """
    # limits first: in a union pydantic would tell of every branch
    data = document.data
    if isinstance(data, dict) and isinstance(data.get("limits"), dict):
        limits = validate(Limits, document.part("limits"))
        document = Document(source=document.source, data={**data, "limits": limits}, lines=document.lines)
    config = validate(SweepConfig, document)
    _check(document, "task", lambda: task_options(config))
    _check(document, "training", lambda: training_of(config))
    _check(document, "space", lambda: space_of(config))
    if config.baseline is not None:
        given = config.baseline
        _check(document, "baseline", lambda: spec_from(space_of(config), given))
    return config


def _check(document: Document, part: str, build: Callable[[], object]) -> None:
    try:
        build()
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise DocumentError(f"{document.where((part,))}: {part}.{first}") from None


def task_options(config: SweepConfig) -> BuiltInOptions:
    """Options of the task."""
    return BuiltInOptions(**config.task.model_dump(exclude={"kind"}))


def training_of(config: SweepConfig) -> Training:
    """How candidates are trained."""
    return Training(**config.training.model_dump())


def space_of(config: SweepConfig) -> TransformerSpace:
    """The space, with the task's heads."""
    options = config.space.model_dump(exclude={"kind"})
    known = {field.name for field in fields(TransformerSpace)}
    values = {name: tuple(value) for name, value in options.items() if name in known}
    heads = built_in_task(task_options(config)).heads
    rest: Any = values  # checked by the space itself
    return TransformerSpace(heads=heads, batch_size=config.training.batch_size, **rest)


def job_of(config: SweepConfig) -> TrainingJob:
    """What every candidate does."""
    return TrainingJob(
        space=space_of(config),
        load_task=partial(built_in_task, task_options(config)),
        training=training_of(config),
        seed=config.seed,
        trial_seconds=config.trial_seconds,
        gpus=config.resources.gpu,
    )


def limits_of(config: SweepConfig) -> Limits:
    """The limits, which `load_config` has read."""
    if isinstance(config.limits, str):
        raise TypeError("the limits' file was not read")
    return config.limits
