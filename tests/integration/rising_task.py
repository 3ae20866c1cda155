"""A task that every training of inherited weights gets better at, and its space: all that a worker loads."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsi_ray.tasks.task import Batch
from search_spaces.inheritance import Inheritance
from search_spaces.space import Sample, Suggest

SAMPLES = 20_000
# what a loop of the runaway gains: 0.01, 0.02, 0.04
LEVELS = (0.5, 0.51, 0.53, 0.57, 0.58, 0.59, 0.6)


class Threshold(nn.Module):
    """Says yes to every number below its threshold; the wider one begins with a bit more."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.full((1,), 0.2))
        self.extra = nn.Linear(1, width)
        self.bonus = 0.002 * width

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = inputs["yes"]
        above = (self.height + self.bonus - x) * 10
        seen = self.extra(x).sum(-1, keepdim=True) * 1e-6
        return {"yes": torch.cat([-above, above + seen], dim=-1)}


class RisingSpace:
    """Widths; a child takes over its parent's threshold, whatever the widths."""

    def suggest(self, trial: Suggest) -> int:
        return trial.suggest_int("width", 1, 6)

    def samples(self) -> Mapping[str, Sample]:
        return {"yes": Sample(shape=(1,), dtype="float32")}

    def build(self, spec: int) -> nn.Module:
        return Threshold(spec)

    def relation(self, old: int, new: int) -> Inheritance:
        return Inheritance(kind="closest" if new >= old else "partial", reasons=("extra: is fresh",))

    def inherit(
        self, old: int, parent: Mapping[str, Tensor], new: int, fresh: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        return {**{name: tensor.double() for name, tensor in fresh.items()}, "height": parent["height"]}


@dataclass(frozen=True, kw_only=True)
class Head:
    name: str = "yes"


class RisingTask:
    """The answer is yes to every number; the score is the threshold, which each training raises alike.

    Where a file `hold-batch` (`hold-sealed`) is in the folder, whoever draws a batch (reads the sealed part)
    waits, and says so in a file, once as many have passed as the file says.
    """

    def __init__(self, folder: str = "") -> None:
        self.heads = (Head(),)
        self.holdout_size = SAMPLES
        self.digest = "0" * 64
        self._folder = Path(folder) if folder else None

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        self._wait("batch")
        return _batch(rng.random(size))

    def holdout(self) -> dict[str, Batch]:
        return self._scored(0.25)

    def sealed(self) -> dict[str, Batch]:
        self._wait("sealed")
        return self._scored(0.75)

    def _scored(self, offset: float) -> dict[str, Batch]:
        return _batch((np.arange(SAMPLES) + offset) / SAMPLES)

    def _wait(self, where: str) -> None:
        if self._folder is None:
            return
        hold = self._folder / f"hold-{where}"
        while hold.exists():
            left = int(hold.read_text())
            if left:
                hold.write_text(str(left - 1))
                return
            (self._folder / f"in-{where}").touch()
            time.sleep(0.05)


class LevelledTask(RisingTask):
    """Whatever the model, it scores what the level that is written in a file says."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._level = Path(folder) / "level"

    def _scored(self, offset: float) -> dict[str, Batch]:
        level = int(self._level.read_text()) if self._level.exists() else 0
        below = round(LEVELS[level] * SAMPLES)
        return _batch(np.repeat([0.0, 9.0], [below, SAMPLES - below]))


def _batch(numbers: Any) -> dict[str, Batch]:
    inputs = np.asarray(numbers, dtype=np.float32)[:, None]
    return {"yes": Batch(inputs=inputs, targets=np.ones(len(inputs), dtype=np.int64))}
