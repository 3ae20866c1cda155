"""A candidate in training, with its state in files: plain torch, without Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from rsi_ray.member_trainer import MemberTrainer
from rsi_ray.scoring import Scored
from rsi_ray.tensor_file import reading_tensors, write_tensors
from rsi_ray.train import Trainer


class TrainingRun:
    """A trainer with its state, of all members, in safetensors files."""

    def __init__(self, trainer: Trainer | MemberTrainer, spec: Any) -> None:
        self._trainer = trainer
        self._spec = spec

    def next_report(self) -> dict[str, object]:
        """Train one epoch: score, domains, loss, samples."""
        report = self._trainer.run_epoch()
        told: dict[str, object] = {
            "score": report.score,
            "domains": dict(report.domains),
            "loss": report.loss,
            "samples": report.samples,
        }
        told |= report.chosen.told() if report.chosen else {}
        return told if report.latency_ms is None else {**told, "latency_ms": report.latency_ms}

    def save(self, path: Path) -> None:
        """Weights, optimizer state and epoch."""
        with path.open("wb") as file:
            self.write_state(file)

    def write_state(self, file: BinaryIO | None) -> None:
        """The same; None where this process only has a part of it, and another one writes."""
        write_tensors(self._trainer.state(), file, whole=self._trainer.group.whole)

    def restore(self, path: Path | None) -> None:
        """Continue from `save`; None where this process hears of it from the first one, which reads.

        Raises:
            ArtifactError: it is a link.
            SafetensorError: it is no safetensors file, such as a pickle, which is never loaded.
        """
        with self._reading(path) as state:
            self._trainer.load_state(state)

    def give(self, path: Path | None) -> None:
        """Take weights alone, as `export` writes them; None as for `restore`.

        Raises:
            ArtifactError, SafetensorError, ValueError: it isn't such a file.
        """
        with self._reading(path) as weights:
            self._single.put(weights)

    @contextmanager
    def _reading(self, path: Path | None) -> Iterator[Mapping[str, Tensor]]:
        with reading_tensors(path) if path else nullcontext() as read:
            yield self._trainer.group.heard(read, self._trainer.device)

    def sealed_scores(self) -> dict[str, Scored]:
        """Score every domain on the sealed part; see `Trainer.sealed_scores`."""
        return self._single.sealed_scores()

    @property
    def _single(self) -> Trainer:
        if not isinstance(self._trainer, Trainer):
            raise TypeError("several members are evaluated by one process alone")
        return self._trainer

    def export(self, path: Path) -> None:
        """Weights alone, of one member, with the spec as metadata."""
        with path.open("wb") as file:
            self.write_weights(file)

    def write_weights(self, file: BinaryIO | None) -> None:
        """The same; None as for `write_state`."""
        metadata = {"spec": json.dumps(_plain(self._spec))}
        write_tensors(self._trainer.weights(), file, whole=self._trainer.group.whole, metadata=metadata)


def _plain(spec: Any) -> Any:
    """A spec as JSON tells it; a user's own may be anything."""
    if is_dataclass(spec) and not isinstance(spec, type):
        return asdict(spec)
    return spec if isinstance(spec, bool | int | float | str | list | dict) else repr(spec)
