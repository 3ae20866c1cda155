"""The sections of a sweep's file: how candidates are trained, searched, stopped, placed and promoted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from rsi_ray.approvers import Policy
from rsi_ray.compilation import Compile
from rsi_ray.placement import BY_WORKERS, MOST_GPUS, MOST_WORKERS, Strategy
from rsi_ray.sections import Whole
from rsi_ray.training import Schedule
from safety import StrictModel
from safety.document import whole_number

Count = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=1_000_000)]
WorkerCount = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=MOST_WORKERS)]
Bytes = Annotated[int, BeforeValidator(whole_number), Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
PositiveSpan = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class MembersConfig(StrictModel):
    """What of a candidate is trained side by side, in one trial; one member if left out."""

    learning_rates: list[Positive] = Field(
        default=[],
        description="two or more peaks of the schedule, of which the best is taken; if left out, the "
        "training's own",
    )
    seeds: Count = Field(
        default=1,
        description="trainings with each learning rate; the median of their scores counts, and its weights",
    )
    stacked: bool | None = Field(
        default=None,
        description="whether they are trained as one batch, where the model can be; if left out, where that "
        "is faster",
    )


class TrainingConfig(StrictModel):
    """How every candidate is trained."""

    epochs: Count = Field(default=9, description="reports of a full training")
    steps_per_epoch: Count = Field(default=30, description="optimizer steps between two reports")
    batch_size: Count = Field(default=32, description="samples per head and step")
    learning_rate: Positive = Field(default=3e-3, description="peak of the schedule")
    schedule: Schedule = Field(default="cosine", description="way from the peak to the end")
    warmup_steps: Annotated[int, BeforeValidator(whole_number)] = Field(
        default=20, description="steps of linear rise to the peak"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.01, description="AdamW's, on matrices")
    compile: Compile = Field(
        default="auto",
        description="whether steps are compiled by torch; auto where it pays, on a GPU in long trainings, "
        "and where the node has a C compiler and Python.h; a candidate of several workers isn't compiled, "
        "and members that are trained as one batch aren't",
    )
    members: MembersConfig = Field(
        default_factory=MembersConfig, description="what of a candidate is trained side by side"
    )


class HyperparametersConfig(StrictModel):
    """Hyperparameters of the training that are searched beside the architecture; the others stay fixed."""

    learning_rate: PositiveSpan | None = Field(default=None, description="least and most, on a log scale")
    weight_decay: PositiveSpan | None = Field(default=None, description="least and most, on a log scale")
    schedule: list[Schedule] = Field(default=[], description="schedules to choose from")
    batch_size: list[Count] = Field(default=[], description="batch sizes to choose from")
    warmup_steps: Annotated[list[Whole], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="fewest and most"
    )


class SchedulerConfig(StrictModel):
    """Which trials are stopped early, paused, or changed while they are trained."""

    kind: Literal["asha", "fifo", "hyperband", "median", "pbt", "pb2"] | None = Field(
        default=None,
        description="asha, hyperband and median stop early, fifo never, pbt and pb2 change hyperparameters; "
        "if left out, asha for one objective and fifo for several",
    )
    grace_period: Count = Field(default=2, description="reports that every trial makes")
    reduction_factor: Annotated[int, Field(ge=2)] = Field(
        default=3, description="asha and hyperband: one in so many goes on"
    )
    interval: Count = Field(default=1, description="pbt and pb2: reports between two changes")


class RecursionConfig(StrictModel):
    """The recursive loop: the best candidate of a generation becomes the champion, if all agree."""

    generations: Count = Field(default=3, description="champions that a run may promote one after the other")
    seeds: Whole = Field(
        default=2, description="further trainings, of other seeds, by which the best candidate is verified"
    )
    screening: list[Literal["synflow", "naswot", "grad_norm"]] = Field(
        default=[],
        description="zero-cost proxies by which candidates near the champion are chosen at their "
        "initialisation; drawn if left out",
    )
    train_on: bool = Field(
        default=False,
        description="whether the champion trained on, its architecture unchanged, is among a generation's "
        "candidates",
    )
    policy: Policy | None = Field(
        default=None, description="what `--approve policy` approves while nobody watches"
    )


class ResourcesConfig(StrictModel):
    """What one trial gets."""

    cpu: Count = Field(default=1, description="CPU cores, and threads, of a trial")
    gpu: Annotated[float, Field(ge=0, le=MOST_GPUS)] | Literal["auto"] = Field(
        default=0.0,
        description="of a GPU, for each process that trains; 0.5 packs two trials on one, auto as many as "
        f"their own memory lets on one; {BY_WORKERS}",
    )
    gpu_memory: Bytes | None = Field(
        default=None,
        description="bytes of the smallest GPU, for auto; what the nodes' drivers tell if left out",
    )
    workers: WorkerCount | Literal["auto"] = Field(
        default=1,
        description="processes that train a trial together, each with these cores and GPUs; auto for as many "
        "as it takes until the trial fits on its GPUs",
    )
    strategy: Strategy = Field(
        default="auto",
        description="of several workers: ddp, each has the whole model; fsdp2, each has a share of it; auto, "
        "ddp where that fits on a GPU",
    )

    @field_validator("gpu", mode="before")
    @classmethod
    def _of_one_process(cls, gpu: Any) -> Any:
        if isinstance(gpu, int | float) and gpu > MOST_GPUS:
            raise ValueError(f"expected a number up to {MOST_GPUS} or 'auto' ({BY_WORKERS})")
        return gpu
