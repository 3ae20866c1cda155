"""Trains the members of a candidate, as one batch or one after the other, and reports the one that stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from rsi_ray.members import Members, choose, chosen_of
from rsi_ray.stacked import Stack
from rsi_ray.tensor_file import Under
from rsi_ray.train import Report, Trainer
from rsi_ray.training_group import TrainingGroup

CHOSEN = "chosen"


class MemberTrainer:
    """Several trainings of one shape, of which after each epoch one stands for all."""

    def __init__(
        self, trainers: Sequence[Trainer], members: Members, *, stacked: bool, latency: bool = False
    ) -> None:
        """Take trainers before their first epoch.

        Args:
            trainers: one for each member, learning rate by learning rate; none of them times its model.
            members: what they are.
            stacked: whether they are trained as one batch, see `stacked.can_stack`.
            latency: whether the last report tells the latency.
        """
        self._trainers, self._members = trainers, members
        self._stacked, self._latency = stacked, latency
        self._stack: Stack | None = None
        self._chosen = 0

    @property
    def epoch(self) -> int:
        """Epochs done, by each."""
        return self._trainers[0].epoch

    @property
    def group(self) -> TrainingGroup:
        """Of the processes that train it: one alone."""
        return self._trainers[0].group

    @property
    def device(self) -> torch.device:
        """Of every member's model."""
        return self._trainers[0].device

    @property
    def model(self) -> nn.Module:
        """That of the member that stands for all, as the last report chose it; before, the first one."""
        return self._trainers[self._chosen].model

    def run_epoch(self) -> Report:
        """Train one epoch of each, evaluate each, and choose; FLOPs and samples are those of all."""
        reports = self._reports()
        scores = [report.score for report in reports]
        self._chosen = choose(scores, self._members.seeds)
        trainer, report = self._trainers[self._chosen], reports[self._chosen]
        rate, domains = trainer.training.learning_rate, [one.domains for one in reports]
        report = replace(
            report,
            flops=sum(one.flops for one in reports),
            samples=sum(one.samples for one in reports),
            chosen=chosen_of(self._members, self._chosen, rate, scores, domains),
        )
        return trainer.timed(report) if self._latency and self.epoch >= trainer.training.epochs else report

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors of that model."""
        return self._trainers[self._chosen].weights()

    def state(self) -> dict[str, Tensor]:
        """Return the tensors themselves that change while training, of every member, by name."""
        states = {
            f"{index}.{name}": tensor
            for index, trainer in enumerate(self._trainers)
            for name, tensor in trainer.state().items()
        }
        return states | {CHOSEN: torch.tensor(self._chosen)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state` of the same members, whether it was trained as one batch or not.

        Raises:
            ValueError: the tensors are not those of these members.
        """
        found = {name.partition(".")[0] for name in state} - {CHOSEN}
        if CHOSEN not in state or found != {str(index) for index in range(len(self._trainers))}:
            raise ValueError(
                f"the saved state has {len(found)} members, expected {len(self._trainers)}: it belongs to "
                f"another training"
            )
        self._stack = None
        for trainer in self._trainers:  # the stack's moments go with the last who has a part of them
            trainer.optimizer.state.clear()
        for index, trainer in enumerate(self._trainers):
            trainer.load_state(Under(state, f"{index}."))
        self._chosen = int(state[CHOSEN])

    def _reports(self) -> list[Report]:
        if self._stacked:
            self._stack = self._stack or Stack(self._trainers)
            return self._stack.run_epoch()
        return [trainer.run_epoch() for trainer in self._trainers]
