"""Trains one candidate, epoch by epoch: what it will compute is known exactly before it starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rsi_ray.compilation import compiled, pays
from rsi_ray.device_data import Samples, on_device
from rsi_ray.members import Chosen
from rsi_ray.resident import drawn_on
from rsi_ray.scoring import (
    LATENCY_FORWARDS,
    Scored,
    check_rows,
    latency_ms,
    loss_of,
    rows_at_a_time,
    scored,
    scores,
)
from rsi_ray.tasks.task import Batch, Task, sealed_part
from rsi_ray.tensor_file import Under
from rsi_ray.training import Training, flops_after, learning_rate_at, planned_flops
from rsi_ray.training_group import ALONE, TrainingGroup
from rsi_ray.weights import put_weights
from search_spaces.cost import Cost
from search_spaces.first_weights import distinct

if TYPE_CHECKING:
    from rsi_ray.member_trainer import MemberTrainer
    from search_spaces.space import SearchSpace

SpecT = TypeVar("SpecT")
Batches = Mapping[str, Batch] | Mapping[str, Samples]

BETAS = (0.9, 0.98)
"""AdamW's: trainings are short, so the second moment forgets faster than by default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One epoch's outcome.

    Attributes:
        epoch: epochs done, counted from 1.
        score: mean of the domains' scores, in [0, 1]; NaN where one of them is.
        domains: score on each domain's hold-out, in [0, 1], see `evaluate`; NaN where an output is not
            finite.
        loss: mean training loss over the epoch, averaged over the heads: nats per answer, or squared error
            of standardised numbers; NaN and infinity are reported as they are.
        flops: computed since the training began, evaluations included.
        samples: training samples since the training began, those of all heads together.
        latency_ms: median time of one forward of one sample of every head; only in the last report of a
            trainer that measures it.
        chosen: the member that this is of; None where there is one alone.
    """

    epoch: int
    score: float
    domains: Mapping[str, float]
    loss: float
    flops: int
    samples: int
    latency_ms: float | None = None
    chosen: Chosen | None = None


def build(space: SearchSpace[SpecT], spec: SpecT, *, seed: int, device: torch.device) -> nn.Module:
    """Build a model whose first weights depend on spec and seed alone, whatever the device."""
    torch.manual_seed(seed)
    # Drawn on the CPU: a GPU's generator would give other weights for the same seed.
    with torch.device("cpu"):
        return space.build(spec).to(device)


class Trainer:
    """One candidate in training.

    On a CPU, with one thread, the reports depend on the model's first weights, the task, the training and
    the seed alone, bit for bit; so does a trainer that continues from another's `state`.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        training: Training,
        *,
        cost: Cost,
        shapes: Mapping[str, tuple[int, ...]],
        seed: int,
        device: torch.device,
        latency: bool = False,
        clock: Callable[[], float] = time.perf_counter,
        group: TrainingGroup = ALONE,
    ) -> None:
        """Take a model that is on the device already, or is shared out there.

        Args:
            model: is trained in place.
            task: what it learns.
            training: how.
            cost: prices its reports.
            shapes: of one sample by head, as they were priced.
            seed: of the batches, and of what the model draws, such as dropout.
            device: of the model.
            latency: whether the last report tells the latency.
            clock: seconds, monotonic; times the latency.
            group: of the processes that train it together; all build the same model.
        """
        self.model, self.device = model, device
        self.training, self.seed = training, seed
        self.epoch = 0
        self._task, self._cost, self._shapes = task, cost, shapes
        self._latency, self._clock = latency, clock
        self.group, trained = group, group.spread(model, device)
        self.optimizer = _optimizer(model, training)
        self._stepped = compiled(model) if self._compiles(task.holdout_size) else trained
        self._draw = (drawn_on(task, device) if device.type == "cuda" else None) or task.batch
        self._holdout = on_device(task.holdout(), device)
        check_rows(self._holdout, task.holdout_size, shapes)

    def run_epoch(self) -> Report:
        """Train one epoch and evaluate."""
        # Dropout draws from torch's own stream, which other work in the process moves on.
        own, rank = np.random.SeedSequence((self.seed, self.epoch)), self.group.rank
        torch.manual_seed(int(own.generate_state(rank + 1)[rank]))
        self.model.train()
        total = torch.zeros((), device=self.device)
        for step, batches in self.batches():
            total += self._step(step, batches)
        self.group.agree(self.model)
        return self.end_epoch(self.group.mean(total).item() / self.training.steps_per_epoch)

    def batches(self) -> Iterator[tuple[int, Batches]]:
        """Draw the batches of the epoch that is next, each with the number of its step, from 0.

        Raises:
            ValueError: a batch is not as it was priced.
        """
        training, start = self.training, self.epoch * self.training.steps_per_epoch
        # A stream per epoch: to resume, it takes no more than the number of the epoch.
        rng = np.random.default_rng((self.seed, self.epoch))
        for step in range(start, start + training.steps_per_epoch):
            batches = self._draw(rng, training.batch_size)
            check_rows(batches, training.batch_size, self._shapes)
            yield step, batches

    def end_epoch(self, loss: float) -> Report:
        """Evaluate after the last step of an epoch, with the mean loss of its steps."""
        self.epoch += 1
        report = self._report(loss)
        return self.timed(report) if self._latency and self.epoch >= self.training.epochs else report

    def timed(self, report: Report) -> Report:
        """Time the model's forward, and tell that and its FLOPs in a report."""
        flops = report.flops + self.group.workers * LATENCY_FORWARDS * self._cost.forward_flops
        latency = latency_ms(self.model, self._task, self.device, self._clock)
        return replace(report, flops=flops, latency_ms=latency)

    def weights(self) -> dict[str, Tensor]:
        """Return the model's tensors themselves, by name; tied ones once."""
        return {name: tensor.detach() for name, tensor in distinct(self.model)}

    def sealed_scores(self) -> dict[str, Scored]:
        """Score every domain on the sealed part of the task.

        Raises:
            ValueError: its samples are not as they were priced.
        """
        batches, _ = sealed_part(self._task)
        check_rows(batches, self._task.holdout_size, self._shapes)
        rows = rows_at_a_time(self.device, self.training.batch_size)
        return scored(self.model, batches, self.device, rows, self.group)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights, whole, in place of its own.

        Raises:
            ValueError: they are of another architecture.
        """
        put_weights(self.model, weights, self.group.part)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors themselves that change while training, by name: a copy may have no room."""
        tensors = {f"model.{name}": tensor for name, tensor in self.weights().items()}
        for name, parameter in self.model.named_parameters():
            moments = self.optimizer.state[parameter]
            tensors |= {f"optimizer.{name}.{moment}": tensor for moment, tensor in moments.items()}
        return tensors | {"epoch": torch.tensor(self.epoch)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state` of the same model and training, of which each tensor is copied by itself.

        Raises:
            ValueError: the tensors are not those of this model; nothing is changed.
        """
        if "epoch" not in state:
            raise ValueError("the saved state has no epoch: it belongs to another architecture")
        self.optimizer.zero_grad()  # makes room for the tensor that is read
        try:
            put_weights(self.model, Under(state, "model."), self.group.part)
        except ValueError as error:
            raise ValueError(f"the saved state belongs to another architecture: {error}") from None
        self.optimizer.state.clear()
        for name, parameter in self.model.named_parameters():
            moments = Under(state, f"optimizer.{name}.")
            self.optimizer.state[parameter] = {
                moment: self.group.part(tensor.to(self.device, copy=True), parameter)
                for moment, tensor in moments.items()
            }
        self.epoch = int(state["epoch"])

    def _compiles(self, holdout_size: int) -> bool:
        if self.group.workers > 1:
            return False
        training = self.training
        flops = planned_flops(self._cost, training, holdout_size)
        steps = training.epochs * training.steps_per_epoch
        return pays(training.compile, self.device, flops=flops, steps=steps)

    def _step(self, step: int, batches: Batches) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.training)
        rows = self.training.batch_size
        loss = loss_of(self._stepped, self.group.share(batches, rows), self.device)
        loss = self.group.weighed(loss, rows)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.training.max_grad_norm)
        self.optimizer.step()
        return loss.detach()

    def _report(self, loss: float) -> Report:
        rows = rows_at_a_time(self.device, self.training.batch_size)
        domains = scores(self.model, self._holdout, self.device, rows, self.group)
        steps = self.epoch * self.training.steps_per_epoch
        return Report(
            epoch=self.epoch,
            score=sum(domains.values()) / len(domains),
            domains=domains,
            loss=loss,
            flops=self._flops(),
            samples=steps * self.training.batch_size * len(self._task.heads),
        )

    def _flops(self) -> int:
        holdout_size, workers = self._task.holdout_size, self.group.workers
        return flops_after(self.epoch, self._cost, self.training, holdout_size, workers=workers)


def train(trainer: Trainer | MemberTrainer, training: Training) -> Iterator[Report]:
    """Train to the end, one report per epoch."""
    while trainer.epoch < training.epochs:
        yield trainer.run_epoch()


def _optimizer(model: nn.Module, training: Training) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=BETAS, fused=True)
