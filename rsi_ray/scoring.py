"""What a model's outputs are worth: losses to train on, scores on the hold-out, time of one forward."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsi_ray.tasks.task import Batch, Task

EVALUATION_CHUNK = 128
"""Hold-out samples per forward pass: bounds the memory of an evaluation."""

LATENCY_WARMUP = 5
LATENCY_TIMED = 25
LATENCY_FORWARDS = LATENCY_WARMUP + LATENCY_TIMED
"""Forwards that a measurement of latency computes, those that aren't timed included."""


def check_rows(batches: Mapping[str, Batch], rows: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse what was not priced: other numbers of samples, or other shapes of one.

    Args:
        batches: inputs (B, *sample shape) by head.
        rows: samples that each may have.
        shapes: of one sample, by head.

    Raises:
        ValueError: a batch is larger or smaller; the message names its head.
    """
    for name, batch in batches.items():
        if name not in shapes or batch.inputs.shape != (rows, *shapes[name]):
            raise ValueError(
                f"{name}: samples of shape {batch.inputs.shape}, priced were {rows} of {shapes.get(name)}"
            )


def loss_of(model: nn.Module, batches: Mapping[str, Batch], device: torch.device) -> Tensor:
    """Return the mean of the heads' losses: cross-entropy in nats, or mean squared error.

    Raises:
        ValueError: the model's numbers are not shaped like a regression's targets.
    """
    inputs = {name: torch.from_numpy(batch.inputs).to(device) for name, batch in batches.items()}
    outputs = _forward(model, inputs, device)
    losses = [
        _loss(name, outputs[name].float(), torch.from_numpy(batch.targets).to(device))
        for name, batch in batches.items()
    ]
    return torch.stack(losses).mean()


def evaluate(model: nn.Module, task: Task, device: torch.device) -> dict[str, float]:
    """Return every domain's score on its hold-out, NaN where an output is not finite.

    Where the targets are classes it is the share of answers exactly right. Where they are numbers it is
    R^2, the mean over the outputs, and 0 where that is negative: no better than the hold-out's mean.
    """
    model.eval()
    with torch.inference_mode():
        return {name: _score(model, name, batch, device) for name, batch in task.holdout().items()}


def latency_ms(model: nn.Module, task: Task, device: torch.device, clock: Callable[[], float]) -> float:
    """Return the median time of one forward of one sample of every head, in ms.

    Args:
        model: computes `LATENCY_FORWARDS` forwards, without gradients.
        task: gives the samples, the first of each hold-out.
        device: where the model is; the copy of the samples to it is not timed.
        clock: seconds, monotonic.
    """
    model.eval()
    samples = {name: torch.from_numpy(batch.inputs[:1]).to(device) for name, batch in task.holdout().items()}
    with torch.inference_mode():
        seconds = [_seconds(model, samples, device, clock) for _ in range(LATENCY_FORWARDS)]
    return 1000 * statistics.median(seconds[LATENCY_WARMUP:])


def _seconds(
    model: nn.Module, samples: dict[str, Tensor], device: torch.device, clock: Callable[[], float]
) -> float:
    start = clock()
    _forward(model, samples, device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def _loss(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    if not targets.is_floating_point():
        return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())
    if outputs.shape != targets.shape:
        raise ValueError(f"{name}: outputs of shape {tuple(outputs.shape)}, expected {tuple(targets.shape)}")
    return F.mse_loss(outputs, targets)


def _score(model: nn.Module, name: str, batch: Batch, device: torch.device) -> float:
    targets = torch.from_numpy(batch.targets).to(device)
    regression = targets.is_floating_point()
    error = torch.zeros(targets.shape[1:], dtype=torch.float64, device=device)
    right = torch.zeros((), dtype=torch.int64, device=device)
    finite = torch.ones((), dtype=torch.bool, device=device)
    for start in range(0, len(batch.inputs), EVALUATION_CHUNK):
        chunk = slice(start, start + EVALUATION_CHUNK)
        outputs = _forward(model, {name: torch.from_numpy(batch.inputs[chunk]).to(device)}, device)[name]
        finite &= outputs.isfinite().all()
        if regression:
            error += (outputs.double() - targets[chunk]).square().sum(0)
        else:
            right += (outputs.argmax(-1) == targets[chunk]).sum()
    if not finite.item():
        return math.nan
    return _r_squared(error, targets) if regression else right.item() / targets.numel()


def _r_squared(error: Tensor, targets: Tensor) -> float:
    """R^2 of squared errors summed over the samples, (outputs,); NaN where an output's targets don't vary."""
    spread = (targets.double() - targets.double().mean(0)).square().sum(0)
    score = float((1 - error / spread).mean())
    if not math.isfinite(score):
        return math.nan
    return max(0.0, score)


def _forward(model: nn.Module, inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    # bfloat16 on a GPU only: on most CPUs it is emulated, and slower than float32.
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        outputs: dict[str, Tensor] = model(inputs)
    return outputs
