"""What a candidate does from its price to its last report: plain torch, without Ray."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from rsi_ray.tasks.task import Task
from rsi_ray.train import Trainer, Training, build, planned_flops
from safety import Claim, Measured, request_digest
from search_spaces.given_trial import spec_from
from search_spaces.measure import measure_space
from search_spaces.space import SearchSpace


class Run(Protocol):
    """One candidate in training."""

    def next_report(self) -> Mapping[str, object]:
        """Train up to the next report: at least `score` and `domains`."""
        ...

    def save(self, path: Path) -> None:
        """Write the whole state to a file."""
        ...

    def restore(self, path: Path) -> None:
        """Continue from a saved state."""
        ...

    def export(self, path: Path) -> None:
        """Write the weights alone."""
        ...


class Job(Protocol):
    """What the candidates of a sweep do; sent to every worker."""

    def price(self, config: Mapping[str, Any]) -> Claim:
        """Claim of a configuration, by arithmetic."""
        ...

    def measure(self, config: Mapping[str, Any]) -> Measured:
        """Count the model that would be built, without allocating it."""
        ...

    def begin(self, config: Mapping[str, Any]) -> Run:
        """Build the candidate."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Trains a space's candidates on a task.

    Attributes:
        space: what can be built.
        load_task: gives the task, once per process.
        training: how long and how.
        seed: of the sweep; each candidate's own follows from it and its configuration.
        trial_seconds: longest time that a candidate may run.
        gpus: GPUs, or a fraction of one, that a candidate has.
    """

    space: SearchSpace[Any]
    load_task: Callable[[], Task]
    training: Training
    seed: int
    trial_seconds: int
    gpus: float = 0.0

    def price(self, config: Mapping[str, Any]) -> Claim:
        """Claim of a configuration: everything that it computes, evaluations included."""
        spec, _ = spec_from(self.space, config)
        cost = self.space.cost(spec)
        wall_ms = self.trial_seconds * 1000
        return Claim(
            params=cost.params,
            forward_flops=cost.forward_flops,
            memory_bytes=cost.memory_bytes,
            train_flops=planned_flops(cost, self.training, self.load_task().holdout_size),
            wall_ms=wall_ms,
            gpu_ms=int(wall_ms * self.gpus),
            reports=self.training.epochs,
        )

    def measure(self, config: Mapping[str, Any]) -> Measured:
        """Count the model that would be built, on the meta device."""
        spec, _ = spec_from(self.space, config)
        found = measure_space(self.space, spec)
        return Measured(params=found.params, forward_flops=found.forward_flops)

    def begin(self, config: Mapping[str, Any]) -> TrainingRun:
        """Build the candidate; the same configuration has the same seed in every run of the sweep's."""
        spec, _ = spec_from(self.space, config)
        device = torch.device("cuda" if self.gpus and torch.cuda.is_available() else "cpu")
        seed = candidate_seed(self.seed, config)
        trainer = Trainer(
            build(self.space, spec, seed=seed, device=device),
            self.load_task(),
            self.training,
            cost=self.space.cost(spec),
            seed=seed,
            device=device,
        )
        return TrainingRun(trainer, spec)


class TrainingRun:
    """A trainer with its state in safetensors files."""

    def __init__(self, trainer: Trainer, spec: Any) -> None:
        self._trainer = trainer
        self._spec = spec

    def next_report(self) -> dict[str, object]:
        """Train one epoch: score, domains, loss, samples."""
        report = self._trainer.run_epoch()
        return {
            "score": report.score,
            "domains": dict(report.domains),
            "loss": report.loss,
            "samples": report.samples,
        }

    def save(self, path: Path) -> None:
        """Weights, optimizer state and epoch."""
        save_file(self._trainer.state(), path)

    def restore(self, path: Path) -> None:
        """Continue from `save`."""
        self._trainer.load_state(load_file(path))

    def export(self, path: Path) -> None:
        """Weights alone, with the spec as metadata."""
        state = self._trainer.state()
        weights = {
            name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")
        }
        save_file(weights, path, metadata={"spec": json.dumps(asdict(self._spec))})


def candidate_seed(seed: int, config: Mapping[str, Any]) -> int:
    """A 63-bit seed that follows from the sweep's and the candidate's configuration alone."""
    text = f"{seed}:{request_digest(config)}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
