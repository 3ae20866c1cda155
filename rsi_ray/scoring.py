"""What a model's outputs are worth: losses to train on, scores on the hold-out, time of one forward."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsi_ray.device_data import Samples, tensor_on
from rsi_ray.tasks.task import Batch, Task
from rsi_ray.training_group import ALONE, TrainingGroup

EVALUATION_CHUNK = 128
"""Hold-out samples per forward pass: bounds the memory of an evaluation."""

LATENCY_WARMUP = 5
LATENCY_TIMED = 25
LATENCY_FORWARDS = LATENCY_WARMUP + LATENCY_TIMED
"""Forwards that a measurement of latency computes, those that aren't timed included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A domain's score on a finite number of samples.

    Attributes:
        score: in [0, 1]; NaN where an output is not finite.
        error: its standard error over other samples of the same kind, at most 1.
    """

    score: float
    error: float


def check_rows(
    batches: Mapping[str, Batch | Samples], rows: int, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse what was not priced: other numbers of samples, or other shapes of one.

    Args:
        batches: inputs (B, *sample shape) by head.
        rows: samples that each may have.
        shapes: of one sample, by head.

    Raises:
        ValueError: a batch is larger or smaller; the message names its head.
    """
    for name, batch in batches.items():
        shape = tuple(batch.inputs.shape)
        if name not in shapes or shape != (rows, *shapes[name]):
            raise ValueError(f"{name}: samples of shape {shape}, priced were {rows} of {shapes.get(name)}")


def loss_of(model: nn.Module, batches: Mapping[str, Batch | Samples], device: torch.device) -> Tensor:
    """Return the mean of the heads' losses: cross-entropy in nats, or mean squared error.

    Raises:
        ValueError: the model's numbers are not shaped like a regression's targets.
    """
    inputs = {name: tensor_on(batch.inputs, device) for name, batch in batches.items()}
    targets = {name: tensor_on(batch.targets, device) for name, batch in batches.items()}
    return loss_on(model, inputs, targets, device)


def loss_on(
    model: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    inputs: dict[str, Tensor],
    targets: Mapping[str, Tensor],
    device: torch.device,
) -> Tensor:
    """Return the same of tensors that are on the device already, by head.

    Raises:
        ValueError: see `loss_of`.
    """
    outputs = _forward(model, inputs, device)
    losses = [_loss(name, outputs[name].float(), target) for name, target in targets.items()]
    return torch.stack(losses).mean()


def evaluate(model: nn.Module, task: Task, device: torch.device) -> dict[str, float]:
    """Return every domain's score on its hold-out, NaN where an output is not finite.

    Where the targets are classes it is the share of answers exactly right. Where they are numbers it is
    R^2, the mean over the outputs, and 0 where that is negative: no better than the hold-out's mean.
    """
    return scores(model, task.holdout(), device)


def scores(
    model: nn.Module,
    batches: Mapping[str, Batch | Samples],
    device: torch.device,
    rows: int = EVALUATION_CHUNK,
    group: TrainingGroup = ALONE,
) -> dict[str, float]:
    """Return every domain's score as `evaluate` does, on any samples, `rows` of them at a time.

    The processes of a group share the samples among them, and all return the same.
    """
    model.eval()
    with torch.inference_mode():
        return {
            name: _score(*_marked(model, name, batch, device, rows, group)) for name, batch in batches.items()
        }


def scored(
    model: nn.Module,
    batches: Mapping[str, Batch | Samples],
    device: torch.device,
    rows: int = EVALUATION_CHUNK,
    group: TrainingGroup = ALONE,
) -> dict[str, Scored]:
    """Return every domain's score as `scores` does, with its standard error."""
    model.eval()
    with torch.inference_mode():
        marked = {name: _marked(model, name, batch, device, rows, group) for name, batch in batches.items()}
        return {name: Scored(score=_score(*found), error=_error(*found)) for name, found in marked.items()}


def rows_at_a_time(device: torch.device, batch_size: int) -> int:
    """Return the samples of a forward that evaluates: on a GPU no more than a training step's, as priced."""
    return min(EVALUATION_CHUNK, batch_size) if device.type == "cuda" else EVALUATION_CHUNK


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


def _marked(
    model: nn.Module,
    name: str,
    batch: Batch | Samples,
    device: torch.device,
    rows: int,
    group: TrainingGroup = ALONE,
) -> tuple[Tensor, Tensor]:
    """Return each sample's right answers, (B,), or squared errors, (B, outputs), NaN where one isn't finite.

    And the targets beside them.
    """
    whole = tensor_on(batch.targets, device)
    mine = group.equal_share(len(batch.inputs))
    inputs, targets = batch.inputs[mine], whole[mine]
    marks = []
    for start in range(0, len(inputs), rows):
        chunk = slice(start, start + rows)
        outputs = _forward(model, {name: tensor_on(inputs[chunk], device)}, device)[name]
        if targets.is_floating_point():
            mark = (outputs.double() - targets[chunk]).square()
        else:
            right = (outputs.argmax(-1) == targets[chunk]).double()
            mark = right.flatten(1).sum(1) if right.ndim > 1 else right
        # one output that is no number spoils the score, whatever the answer is
        finite = outputs.isfinite().flatten(1).all(1)
        marks.append(torch.where(finite.view(-1, *[1] * (mark.ndim - 1)), mark, math.nan))
    return group.gathered(torch.cat(marks), len(whole)), whole


def _score(marks: Tensor, targets: Tensor) -> float:
    """Score of the marks of all samples, NaN where one is, or where an output's targets don't vary."""
    if not targets.is_floating_point():
        return float(marks.sum()) / targets.numel()
    score = float((1 - marks.sum(0) / _spread(targets)).mean())
    return max(0.0, score) if math.isfinite(score) else math.nan


def _spread(targets: Tensor) -> Tensor:
    return (targets.double() - targets.double().mean(0)).square().sum(0)


def _error(marks: Tensor, targets: Tensor) -> float:
    """Standard error of a score that is drawn from so many samples.

    Of answers: that of their mean, after one right and one wrong sample are added, so that it is never zero
    (Agresti and Caffo, "Simple and effective confidence intervals for proportions and differences of
    proportions", 2000); the places of a sample stay together. Of numbers: the jackknife's (Efron and
    Tibshirani, "An introduction to the bootstrap", 1993, chapter 11).
    """
    count = len(targets)
    if not targets.is_floating_point():
        shares = torch.cat([marks * count / targets.numel(), marks.new_tensor([0.0, 1.0])])
        error = float((shares.var(correction=0) / len(shares)).sqrt())
    else:
        away = (targets.double() - targets.double().mean(0)).square() * count / (count - 1)
        scores = (1 - (marks.sum(0) - marks) / (_spread(targets) - away)).mean(1)
        error = float(((count - 1) * scores.var(correction=0)).sqrt())
    # without a number nothing is known of a score but that it is from 0 to 1
    return min(1.0, error) if math.isfinite(error) else 1.0


def _forward(
    model: Callable[[dict[str, Tensor]], dict[str, Tensor]], inputs: dict[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    # bfloat16 on a GPU only: on most CPUs it is emulated, and slower than float32.
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        return model(inputs)
