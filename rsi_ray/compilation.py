"""Whether and how a candidate's training step is compiled by `torch.compile`."""

from __future__ import annotations

import importlib
from typing import Literal

import torch
from torch import nn

Compile = Literal["auto", "always", "never"]

# A compilation takes about a minute and saves about a quarter of a step, so that it pays in trainings of four
# minutes and more: at 100 TFLOP/s, or at 5 ms a step where launches take the time. `bench.gpu` measures both.
PAYING_FLOPS = 24 * 10**15
PAYING_STEPS = 48_000


def pays(choice: Compile, device: torch.device, *, flops: int, steps: int) -> bool:
    """Whether the steps of a training are compiled.

    Args:
        choice: `auto` compiles on a GPU alone, where the training is long enough.
        device: that trains.
        flops: of the whole training, as they are planned.
        steps: of the whole training.
    """
    if choice != "auto":
        return choice == "always"
    return device.type == "cuda" and (flops >= PAYING_FLOPS or steps >= PAYING_STEPS)


def compiled(model: nn.Module) -> nn.Module:
    """The model with its forward compiled at its first call; weights, and their names, stay the model's own.

    Raises:
        ImportError: this torch can't compile.
    """
    # else a process compiles for eight candidates of a class, and for no more
    torch.compiler.reset()
    inductor = importlib.import_module("torch._inductor.config")
    # a pool of compilers would count as the candidate's memory
    inductor.compile_threads = 1  # type: ignore[attr-defined]
    wrapped: nn.Module = torch.compile(model)  # type: ignore[assignment]
    return wrapped
