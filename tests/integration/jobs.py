"""A small space and jobs that behave in every way a user's may; imported by drivers and workers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from safety import Claim, Measured
from search_spaces.cost import Cost
from search_spaces.measure import measure_space
from search_spaces.space import Sample, Suggest

REPORTS = 3


class Line(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.linear(inputs["x"][..., None].expand(-1, -1, self.linear.in_features))


@dataclass(frozen=True, kw_only=True)
class WidthSpace:
    """A square matrix: width x width parameters."""

    widths: tuple[int, int] = (1, 40)

    def suggest(self, trial: Suggest) -> int:
        return trial.suggest_int("width", *self.widths)

    def cost(self, spec: int) -> Cost:
        params = spec * spec
        return Cost(params=params, forward_flops=2 * params, train_step_flops=6 * params, memory_bytes=params)

    def build(self, spec: int) -> nn.Module:
        return Line(spec)

    def samples(self) -> Mapping[str, Sample]:
        return {"x": Sample(shape=(1,), dtype="float32")}


# reports whose score is none; by the candidate's width, from 1
NO_SCORES: tuple[Mapping[str, object], ...] = (
    {"score": float("nan"), "domains": {}},
    {"score": float("inf")},
    {"score": -float("inf")},
    {"score": None},
    {"score": "0.99"},
    {"score": 10**400},
    {"loss": 1.0},
)


@dataclass
class Behaviour:
    """What a run does at its second report."""

    kind: str
    width: int
    seconds: float
    domain: float
    weights: int = 0
    reports: int = 0
    taken: list[torch.Tensor] = field(default_factory=list)

    def next_report(self) -> Mapping[str, object]:
        self.reports += 1
        time.sleep(self.seconds)
        if self.reports == 2:
            if self.kind == "raise":
                raise ValueError("no such luck")
            if self.kind == "hang":
                time.sleep(1000)
            if self.kind == "greedy":
                for _ in range(80):
                    self.taken.append(torch.ones(5 * 10**6))  # 20 MB
                    time.sleep(0.05)
            if self.kind == "no scores":
                return NO_SCORES[self.width - 1]
        return {"score": self.width / 100, "domains": {"danger": self.domain}}

    def save(self, path: Path) -> None:
        path.write_text(str(self.reports))

    def restore(self, path: Path) -> None:
        self.reports = int(path.read_text())

    def export(self, path: Path) -> None:
        path.write_bytes(bytes(self.weights))


@dataclass(frozen=True, kw_only=True)
class BehavingJob:
    """Claims one GFLOP per report."""

    kind: str = "good"
    space: WidthSpace = WidthSpace()
    seconds: float = 0.0
    domain: float = 0.1
    trial_seconds: int = 60
    lie: int = 0
    weights: int = 0

    def price(self, config: Mapping[str, Any]) -> Claim:
        cost = self.space.cost(config["width"])
        return Claim(
            params=cost.params - self.lie,
            forward_flops=cost.forward_flops,
            memory_bytes=cost.memory_bytes,
            train_flops=REPORTS * 10**9,
            wall_ms=self.trial_seconds * 1000,
            reports=REPORTS,
        )

    def measure(self, config: Mapping[str, Any]) -> Measured:
        found = measure_space(self.space, config["width"])
        return Measured(params=found.params, forward_flops=found.forward_flops)

    def suggest(self, trial: Suggest) -> int:
        return self.space.suggest(trial)

    def digest(self) -> str:
        return self.kind

    def begin(self, config: Mapping[str, Any]) -> Behaviour:
        return Behaviour(self.kind, config["width"], self.seconds, self.domain, self.weights)
