"""The limits: parsed once, strict, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from safety.document import Document, StrictModel, flop_count, read_yaml, validate, whole_number

Size = Annotated[int, BeforeValidator(whole_number), Field(ge=1)]
Amount = Annotated[int, BeforeValidator(whole_number)]
Flops = Annotated[int, BeforeValidator(flop_count)]
Score = Annotated[float, Field(ge=0, le=1)]


class Bounds(StrictModel):
    """Ceilings of one candidate. Equal to a ceiling is allowed, the next value is not."""

    max_params: Size = Field(description="trainable parameters of a candidate")
    max_flops: Size = Field(description="FLOPs of one forward pass of one sample")
    max_memory: Size = Field(description="bytes that training a candidate may hold")
    max_performance: dict[str, Score] = Field(
        default_factory=dict, description="score from 0 to 1 that a candidate may reach, per domain"
    )


class Budgets(StrictModel):
    """Sums that may be used up; a budget left out is not limited."""

    train_flops: Flops | None = Field(default=None, description="FLOPs of all training together")
    trials: Amount | None = Field(default=None, description="number of trials that were started")
    concurrent_params: Amount | None = Field(
        default=None, description="parameters of all candidates that train at the same time"
    )
    gpu_seconds: Amount | None = Field(default=None, description="GPU time of all trials together, seconds")
    wall_seconds: Amount | None = Field(
        default=None, description="wall-clock time summed over trials, seconds"
    )


class Limits(StrictModel):
    """All ceilings and budgets that bind a sweep and its cluster.

    The first four keys and `bounds` are the `safety_config` of the guide, unchanged.
    """

    max_generations: Size = Field(default=10, description="champions that may follow one another")
    min_improvement: Annotated[float, Field(ge=0)] = Field(
        default=0.01, description="relative improvement under which the loop has converged"
    )
    require_approval: bool = Field(default=True, description="whether a human approves each new champion")
    max_improvement_rate: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="relative improvement over the champion above which a human is asked"
    )
    improvement_window_hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        default=24, description="hours over which all promotions of a lineage count together"
    )
    on_excess: Literal["hold", "throttle", "shutdown"] = Field(
        default="hold",
        description="what happens to an improvement over the ceiling: a human decides, it waits until the "
        "window has room, or its lineage is shut down",
    )
    runaway_factor: Annotated[float, Field(ge=1)] = Field(
        default=1.5, description="gains are a runaway where each is more than so many times the one before"
    )
    runaway_length: Annotated[int, Field(ge=2, le=100)] = Field(
        default=3, description="number of gains in a row that are compared"
    )
    bounds: Bounds = Field(description="ceilings of one candidate")
    cluster: Budgets = Field(
        default_factory=Budgets, description="budgets shared by every sweep on the ledger"
    )
    sweep: Budgets = Field(default_factory=Budgets, description="budgets of this sweep alone")
    lease_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=15, description="seconds that a worker may compute without a renewed lease"
    )
    grace_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=5, description="seconds after a lease's end until its hold is spent"
    )

    @property
    def digest(self) -> str:
        """SHA-256 of the limits in canonical form; one digest, one policy."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    @property
    def canonical(self) -> str:
        """JSON of every field in the order of declaration; domains sorted."""
        performance = dict(sorted(self.bounds.max_performance.items()))
        bounds = self.bounds.model_copy(update={"max_performance": performance})
        return self.model_copy(update={"bounds": bounds}).model_dump_json()


def limits_from_yaml(path: Path) -> Limits:
    """Read limits from a YAML file.

    Raises:
        DocumentError: one line with the file, the line, the field and what was expected.
    """
    return validate(Limits, read_yaml(path))


def limits_from_dict(safety_config: Mapping[str, object]) -> Limits:
    """Read limits from a mapping; the guide's own `safety_config` is one.

    Raises:
        DocumentError: one line with the field and what was expected.
    """
    return validate(Limits, Document(source="safety_config", data=safety_config))
