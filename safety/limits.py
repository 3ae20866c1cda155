"""The limits: parsed once, strict, hashed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from safety.document import Document, StrictModel, flop_count, read_yaml, validate, whole_number
from safety.identity import public_key

Size = Annotated[int, BeforeValidator(whole_number), Field(ge=1)]
Amount = Annotated[int, BeforeValidator(whole_number)]
Flops = Annotated[int, BeforeValidator(flop_count)]
Score = Annotated[float, Field(ge=0, le=1)]


def _person(name: str) -> str:
    if not re.fullmatch(r"[\w.@+-]{1,100}", name):
        raise ValueError("expected a name of letters, digits and . @ + - _")
    return name


Person = Annotated[str, AfterValidator(_person)]
PublicKey = Annotated[str, BeforeValidator(public_key)]


class Bounds(StrictModel):
    """Ceilings of one candidate. Equal to a ceiling is allowed, the next value is not."""

    max_params: Size = Field(description="trainable parameters of a candidate")
    max_flops: Size = Field(description="FLOPs of one forward pass of one sample")
    max_memory: Size = Field(description="bytes that training a candidate may hold")
    max_train_flops: Flops | None = Field(
        default=None, description="FLOPs of all training of a candidate, that of its ancestors included"
    )
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


class Approval(StrictModel):
    """Whose approvals lift the kill switch, loosen limits and promote a champion."""

    approvers: dict[Person, PublicKey] | None = Field(
        default=None,
        description="public key of each approver, 64 hexadecimal digits, by name; none: whoever has the "
        "ledger lifts the switch, and nobody loosens limits",
    )
    quorum: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1, description="number of approvers that must agree"
    )
    hours: Annotated[int, Field(ge=1, le=8760)] = Field(
        default=24, description="hours until a request and its approvals expire"
    )
    proposer_may_approve: bool = Field(
        default=False, description="whether the approval of whoever asks counts"
    )

    @model_validator(mode="after")
    def _can_be_given(self) -> Approval:
        if self.is_named and len(set(self.keys.values())) < len(self.keys):
            raise ValueError("expected a key of their own for each approver")
        if not self.is_reachable:
            raise ValueError(f"expected a quorum of at most the {len(self.keys)} approvers that are named")
        return self

    @property
    def keys(self) -> dict[str, str]:
        """Public key of each approver."""
        return self.approvers or {}

    @property
    def is_named(self) -> bool:
        """Whether approvers are named at all; it may be that none of them is left."""
        return self.approvers is not None

    @property
    def is_reachable(self) -> bool:
        """Whether so many approvers are named as must agree."""
        return self.quorum <= (len(self.keys) if self.is_named else 1)


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
    approval: Approval = Field(default_factory=Approval, description="who approves, and how many of them")
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
        """JSON of every field in the order of declaration; domains and approvers sorted."""
        performance = dict(sorted(self.bounds.max_performance.items()))
        bounds = self.bounds.model_copy(update={"max_performance": performance})
        approvers = dict(sorted(self.approval.keys.items())) if self.approval.is_named else None
        approval = self.approval.model_copy(update={"approvers": approvers})
        return self.model_copy(update={"bounds": bounds, "approval": approval}).model_dump_json()


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
