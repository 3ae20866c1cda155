"""The YAML file of a sweep, parsed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator

from rsi_ray.alerts import AlertsConfig
from rsi_ray.artifact_store import store_uri
from rsi_ray.config_sections import (
    Count,
    HyperparametersConfig,
    RecursionConfig,
    ResourcesConfig,
    SchedulerConfig,
    TrainingConfig,
)
from rsi_ray.disk import RUN_FILE
from rsi_ray.example_files import example_file
from rsi_ray.objectives import SCORE, problems_of_objectives
from rsi_ray.printable import one_line
from rsi_ray.runs import told_config
from rsi_ray.samplers import SAMPLERS, sampler_of
from rsi_ray.sections import Whole, parse_section
from rsi_ray.states import CHECKPOINT_SECONDS
from rsi_ray.wiring import (
    SPACES,
    TASK_SECTIONS,
    choices_of,
    load_task_of,
    sweep_of,
    training_of,
    with_paths_from,
)
from safety import Document, DocumentError, Limits, StrictModel, limits_from_yaml, read_yaml, validate
from safety.document import whole_number
from safety.identity import public_key
from safety.names import plain_name
from search_spaces.given_trial import spec_from

Seed = Annotated[int, BeforeValidator(whole_number), Field(le=2**32 - 1)]
PublicKey = Annotated[str, BeforeValidator(public_key)]

BuiltT = TypeVar("BuiltT")


class SweepConfig(StrictModel):
    """One governed sweep."""

    name: str = Field(default="sweep", description="of the runs; each adds its time")
    lineage: str | None = Field(
        default=None,
        description="line of champions that its improvement is judged in, together with every other sweep of "
        "that name on the ledger; one of its own if left out",
    )
    seed: Seed = Field(default=0, description="of sampler and candidates")
    trials: Count = Field(default=24, description="candidates that are trained, the baseline included")
    concurrent: Count | None = Field(
        default=None,
        description="trials at a time; as many as fit if left out; a resumed run proposes the same with 1",
    )
    seconds: Count | None = Field(default=None, description="time after which the sweep ends")
    trial_seconds: Count = Field(default=600, description="longest time of one trial, seconds")
    sampler: str = Field(
        default="tpe",
        description=f"one of {', '.join(SAMPLERS)}, or module:Class of an Optuna sampler",
    )
    objectives: list[str] = Field(
        default=[SCORE],
        description="score, and what is to be small beside it: params, forward_flops, memory, latency",
    )
    keep_weights: Whole = Field(default=3, description="best candidates whose weights are kept")
    checkpoint_bytes: Whole | None = Field(
        default=None, description="what weights and checkpoints may take on disk; more ends the sweep"
    )
    checkpoint_seconds: Whole | None = Field(
        default=CHECKPOINT_SECONDS,
        description="between two states of a candidate in training that another node goes on from where "
        "its own is lost; 0 for one at each report, null for none",
    )
    max_failures: Count = Field(
        default=3, description="candidates that failed in a row; so many end the sweep"
    )
    storage: str = Field(default="rsi_results", description="folder of all runs")
    artifacts: str | None = Field(
        default=None,
        description="URI of a store, as s3://bucket/prefix, gs://, abfs:// or file:///, that workers write "
        "checkpoints and weights into and that results are repeated in; if left out, all nodes share the "
        "storage",
    )
    ledger: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the ledger; if left out, the one of the cluster's governor, "
        "or one in the storage",
    )
    governor_key: PublicKey | None = Field(
        default=None,
        description="public key that the governor must prove, in hexadecimal; if left out, the one beside "
        "the ledger, or else the first that it shows",
    )
    checkpoints: list[str] = Field(
        default=[],
        description="folders on the governor's host, of another disk or a mounted share, that the signed "
        "ends of the audit are written to as well; the governor keeps to them for good",
    )
    alerts: AlertsConfig = Field(
        default_factory=AlertsConfig, description="who is told where its lineage is shut down"
    )
    space: SerializeAsAny[StrictModel] = Field(
        default_factory=SPACES["transformer"], description="what may be proposed"
    )
    task: SerializeAsAny[StrictModel] = Field(
        default_factory=TASK_SECTIONS["built_in"], description="what is learned"
    )
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="how it is trained")
    hyperparameters: HyperparametersConfig = Field(
        default_factory=HyperparametersConfig, description="what of the training is searched"
    )
    scheduler: SchedulerConfig = Field(default_factory=SchedulerConfig, description="what is stopped early")
    resources: ResourcesConfig = Field(default_factory=ResourcesConfig, description="what a trial gets")
    baseline: dict[str, Any] | None = Field(
        default=None,
        description="a candidate's parameters, trained first and alone, to compare with; the base model of "
        "the recursive loop",
    )
    recursion: RecursionConfig | None = Field(
        default=None,
        description="makes a run the recursive loop, whose generations are sweeps of so many trials; one "
        "sweep if left out",
    )
    enqueue: list[dict[str, Any]] = Field(
        default=[], description="candidates' parameters, trained before the sampler is asked"
    )
    warm_start: str | None = Field(
        default=None, description="an earlier run, by name or folder, whose candidates the sampler is told"
    )
    limits: Limits | str = Field(description="the limits, or the path of a YAML file that holds them")

    @field_validator("name", "lineage")
    @classmethod
    def _plain_name(cls, name: str | None) -> str | None:
        return None if name is None else plain_name(name)

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, sampler: str) -> str:
        sampler_of(sampler, 0)
        return sampler

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, objectives: list[str]) -> list[str]:
        for problem in problems_of_objectives(objectives):
            raise ValueError(problem.removeprefix("objectives: "))
        return objectives


def load_config(path: Path) -> SweepConfig:
    """Read a sweep's file; what it names by path lies where the file says, from its own folder.

    Raises:
        DocumentError: one line with the file, the line, the field and what was expected.
    """
    return parse_config(read_yaml(path), folder=path.parent)


def load_example(name: str) -> SweepConfig:
    """Read an example that comes with the package.

    Raises:
        DocumentError: there is no such example.
    """
    with resources.as_file(example_file(name)) as path:
        return parse_config(read_yaml(path), folder=Path())


def config_of_run(folder: Path, file: str = RUN_FILE) -> SweepConfig:
    """The configuration that a run wrote down in a file of its folder.

    Raises:
        RunError: it was made in Python, with objects of its own.
    """
    return parse_config(Document(source=str(folder / file), data=told_config(folder, file)), folder=Path())


def parse_config(document: Document, *, folder: Path) -> SweepConfig:
    """Parse a document into a config, and check that its parts can be built.

    Args:
        document: the file.
        folder: where the paths in it begin.

    Raises:
        DocumentError: see `load_config`.
    """
    if isinstance(document.data, Mapping):
        document = _parts_parsed(document, folder)
    config = validate(SweepConfig, document)
    config = config.model_copy(update={"task": with_paths_from(config.task, folder)})
    config = config.model_copy(update={"space": with_paths_from(config.space, folder)})
    places = [str((folder / Path(place).expanduser()).absolute()) for place in config.checkpoints]
    config = config.model_copy(update={"checkpoints": places})
    _check(document, "task", lambda: load_task_of(config)())
    _check(document, "training", lambda: training_of(config))
    _check(document, "hyperparameters", lambda: choices_of(config))
    sweep = _check(document, "space", lambda: sweep_of(config.model_copy(update={"enqueue": []})))
    job = _check(document, "space", sweep.job)
    _check(document, "scheduler", sweep.check_scheduler)
    if config.baseline is not None:
        given = config.baseline
        _check(document, "baseline", lambda: spec_from(job, given))
    for place, params in enumerate(config.enqueue):
        _check(document, "enqueue", partial(spec_from, job, params), place)
    return config


def _parts_parsed(document: Document, folder: Path) -> Document:
    """The document with its unions parsed already: pydantic would tell of every branch."""
    data: dict[str, Any] = dict(document.data)  # type: ignore[call-overload]
    if isinstance(data.get("artifacts"), str):
        try:
            store_uri(data["artifacts"])
        except ValueError as error:  # by itself pydantic would show the value, and a key in it
            raise DocumentError(f"{document.where(('artifacts',))}: artifacts: {error}") from None
    if isinstance(data.get("limits"), Mapping):
        data["limits"] = validate(Limits, document.part("limits"))
    elif isinstance(data.get("limits"), str):
        data["limits"] = limits_from_yaml(folder / data["limits"])
    for part, sections, default in (("space", SPACES, "transformer"), ("task", TASK_SECTIONS, "built_in")):
        if part in data:
            data[part] = parse_section(document, part, sections, default=default)
    return Document(source=document.source, data=data, lines=document.lines)


def _check(document: Document, part: str, build: Callable[[], BuiltT], *place: int) -> BuiltT:
    """Build a part; what is wrong with it is told with the line where it stands."""
    try:
        return build()
    except (ValueError, TypeError, OSError) as error:
        first = one_line(error).removeprefix(f"{part}: ").removeprefix(f"{part}.")
        named = "".join(f"[{index}]" for index in place)
        raise DocumentError(f"{document.where((part, *place))}: {part}{named}.{first}") from None
