"""The job of a sweep that trains, from a candidate's price to its last report: plain torch, without Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from rsi_ray.cuda_memory import begin_cuda, hold_to
from rsi_ray.gpu_check import require_gpu
from rsi_ray.heritage import Parent
from rsi_ray.hyperparameters import TrainingChoices, space_for
from rsi_ray.member_trainer import MemberTrainer
from rsi_ray.members import STACKED_BYTES, Members, may_stack, member_seed
from rsi_ray.placement import Placement, Resources
from rsi_ray.resident import kept_bytes
from rsi_ray.stacked import can_stack
from rsi_ray.tasks.task import Task
from rsi_ray.train import Trainer, build
from rsi_ray.training import Training, planned_flops
from rsi_ray.training_group import ALONE, TrainingGroup
from rsi_ray.training_run import TrainingRun
from safety import Claim, Measured, request_digest
from search_spaces.convnet import ConvSpace
from search_spaces.cost import Cost
from search_spaces.given_trial import spec_from
from search_spaces.measure import measure_space
from search_spaces.mlp import MLPSpace
from search_spaces.space import SearchSpace, Suggest
from search_spaces.transformer import TransformerSpace
from search_spaces.transformer_memory import mixed_memory_bytes

# their prices of a training step are exact
OURS = (TransformerSpace, ConvSpace, MLPSpace)
# of a parameter, in bfloat16
BYTES_OF_A_COPY = 2


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Trains a space's candidates on a task, with hyperparameters that may be searched beside them.

    Attributes:
        space: what can be built.
        load_task: gives the task, once per process.
        training: how long and how, where it isn't searched.
        choices: hyperparameters that are searched.
        seed: of the sweep; each candidate's own follows from it and its configuration.
        trial_seconds: longest time that a candidate may run.
        resources: that a candidate is given.
        latency: whether the last report tells how long one forward takes.
        parent: whose weights candidates begin with, as far as they fit; None for weights of their own.
    """

    space: SearchSpace[Any]
    load_task: Callable[[], Task]
    training: Training
    choices: TrainingChoices = field(default_factory=TrainingChoices)
    seed: int
    trial_seconds: int
    resources: Resources = field(default_factory=Resources)
    latency: bool = False
    parent: Parent | None = None

    def __post_init__(self) -> None:
        """Refuse to search what the members have.

        Raises:
            ValueError: see `TrainingChoices.check`.
        """
        self.choices.check(self.training.members)

    def suggest(self, trial: Suggest) -> Candidate:
        """Choose an architecture and the hyperparameters of its training."""
        spec = self.space.suggest(trial)
        return Candidate(spec=spec, training=self.choices.suggest(trial, self.training))

    def price(self, config: Mapping[str, Any]) -> Claim:
        """Claim of a configuration: everything that its members compute, evaluations included.

        Parameters and FLOPs of a forward are those of one member.

        Raises:
            TooLarge: it asks for the share of a GPU that it needs, and fits on none.
        """
        candidate = self.candidate(config)
        cost, training = self._cost(candidate), candidate.training
        placement, each = self._placed(candidate, cost)
        wall_ms = self.trial_seconds * 1000
        return Claim(
            params=cost.params,
            forward_flops=cost.forward_flops,
            memory_bytes=each * placement.workers,
            train_flops=planned_flops(
                cost, training, self.task.holdout_size, latency=self.latency, workers=placement.workers
            ),
            wall_ms=wall_ms,
            gpu_ms=int(wall_ms * placement.gpus * placement.workers),
            reports=training.epochs,
            members=training.members.count,
            ancestor_flops=self.parent.train_flops if self.parent else 0,
        )

    def placement(self, config: Mapping[str, Any]) -> Placement:
        """What a configuration asks of Ray.

        Raises:
            TooLarge: see `price`.
        """
        candidate = self.candidate(config)
        return self._placed(candidate, self._cost(candidate))[0]

    def _placed(self, candidate: Candidate, cost: Cost) -> tuple[Placement, int]:
        """Where a candidate is trained, and the bytes that each of its workers holds."""
        rows = candidate.training.batch_size
        whole, memory = 0, cost.memory_bytes
        if self.resources.gpus:  # autocast's copies and the hold-out are on every GPU
            memory, whole = self._gpu_bytes(candidate, cost), BYTES_OF_A_COPY * cost.params + self._kept_bytes
        memory = self._of_all(candidate, cost, memory)
        placement = self.resources.placement(memory, params=cost.params, rows=rows, whole=whole)
        return placement, placement.worker_bytes(memory, params=cost.params, rows=rows, whole=whole)

    def on_gpus_of(self, gpu_memory: int) -> TrainingJob:
        """The same where the smallest GPU has so many bytes; a task that is loaded isn't loaded again."""
        return self._with(gpu_memory=gpu_memory)

    def by_one(self) -> TrainingJob:
        """The same where one process has all of a candidate, on a GPU if it is to be trained on one."""
        return self._with(workers=1, gpus=1.0 if self.resources.gpus else 0.0)

    def _with(self, **resources: Any) -> TrainingJob:
        job = replace(self, resources=replace(self.resources, **resources))
        vars(job).update({name: value for name, value in vars(self).items() if name == "task"})
        return job

    def measure(self, config: Mapping[str, Any]) -> Measured:
        """Count the model that would be built, on the meta device.

        Data, and CUDA on a GPU, are loaded before a lease begins: under it they would count as the
        candidate's memory.

        Raises:
            GpuError: there is a GPU that torch can't use.
        """
        self.digest()
        if self.resources.workers == 1 or self.placement(config).workers == 1:
            require_gpu(self.resources.gpus)
            begin_cuda(self.device)  # what several workers train is on their GPUs
        found = measure_space(self.space, self.candidate(config).spec)
        return Measured(params=found.params, forward_flops=found.forward_flops)

    def begin(self, config: Mapping[str, Any], group: TrainingGroup = ALONE) -> TrainingRun:
        """Build the candidate; the same configuration has the same seed in every run of the sweep's."""
        return TrainingRun(self.trainer(config, group), self.candidate(config).spec)

    def trainer(self, config: Mapping[str, Any], group: TrainingGroup = ALONE) -> Trainer | MemberTrainer:
        """A trainer of the candidate, before its first epoch, in each of the processes that train it."""
        training, seed = self.candidate(config).training, candidate_seed(self.seed, config)
        members = training.members
        self._hold(config)  # once: what is there already may stay beside it
        if members.count == 1:
            return self._alone(config, training, seed, latency=self.latency, group=group)
        alone = [
            replace(training, learning_rate=rate, members=Members())
            for rate in members.learning_rates or (training.learning_rate,)
        ]
        trainers = [
            self._alone(config, one, member_seed(seed, index), latency=False)
            for one in alone
            for index in range(members.seeds)
        ]
        stacked = self._is_stacked(self.candidate(config))
        return MemberTrainer(trainers, members, stacked=stacked, latency=self.latency)

    def _alone(
        self,
        config: Mapping[str, Any],
        training: Training,
        seed: int,
        *,
        latency: bool,
        group: TrainingGroup = ALONE,
    ) -> Trainer:
        candidate = self.candidate(config)
        # what is to be shared out may be too large for a GPU
        device = torch.device("cpu") if group.sharded else self.device
        model = build(self.space, candidate.spec, seed=seed, device=device)
        if self.parent:
            self.parent.give(self.space, candidate.spec, model)
        return Trainer(
            model,
            self.task,
            training,
            cost=self._cost(candidate),
            shapes=self.shapes,
            seed=seed,
            device=self.device,
            latency=latency,
            group=group,
        )

    def model(self, config: Mapping[str, Any], seed: int) -> nn.Module:
        """A candidate with its own first weights; on a GPU its process takes no more than it claims."""
        self._hold(config)
        return build(self.space, self.candidate(config).spec, seed=seed, device=self.device)

    def _hold(self, config: Mapping[str, Any]) -> None:
        candidate = self.candidate(config)
        hold_to(self._placed(candidate, self._cost(candidate))[1], self.device)

    def _is_stacked(self, candidate: Candidate) -> bool:
        return self._may_be_stacked(candidate, self._cost(candidate)) and can_stack(
            partial(self.space.build, candidate.spec), self.space.samples()
        )

    def _may_be_stacked(self, candidate: Candidate, cost: Cost) -> bool:
        device = "cuda" if self.resources.gpus else "cpu"  # a driver may see none of its trials' GPUs
        members, flops = candidate.training.members, cost.train_step_flops
        return may_stack(members, params=cost.params, step_flops=flops, device=device)

    @property
    def device(self) -> torch.device:
        """Where candidates are trained."""
        return torch.device("cuda" if self.resources.gpus and torch.cuda.is_available() else "cpu")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one sample by head, as they are priced."""
        return {name: sample.shape for name, sample in self.space.samples().items()}

    def _gpu_bytes(self, candidate: Candidate, cost: Cost) -> int:
        """Of a GPU: in bfloat16 autocast, which copies the weights of products, beside the data."""
        space = self._priced_space(candidate)
        if isinstance(space, TransformerSpace):
            return mixed_memory_bytes(space, candidate.spec) + self._kept_bytes
        return cost.memory_bytes + BYTES_OF_A_COPY * cost.params + self._kept_bytes

    @cached_property
    def _kept_bytes(self) -> int:
        """Of the data that stay on a GPU."""
        return kept_bytes(self.task)

    def digest(self) -> str:
        """The task's."""
        return self.task.digest

    @cached_property
    def task(self) -> Task:
        """What candidates learn; loaded once."""
        return self.load_task()

    def __getstate__(self) -> dict[str, Any]:
        """Each process loads the task for itself."""
        return {name: value for name, value in vars(self).items() if name not in ("task", "_kept_bytes")}

    def candidate(self, config: Mapping[str, Any]) -> Candidate:
        """The architecture of a configuration, and how it is trained."""
        candidate, _ = spec_from(self, config)
        return candidate

    def _of_all(self, candidate: Candidate, cost: Cost, memory: int) -> int:
        """Memory of all members, which hold theirs at a time even where they are trained one by one."""
        count = candidate.training.members.count
        if not self._may_be_stacked(candidate, cost):
            return memory * count
        # operators of a stack may keep what fused ones needn't; in our spaces they don't
        each = memory * (1 if isinstance(self.space, OURS) else 2)
        return count * (each + STACKED_BYTES * cost.params)

    def _priced_space(self, candidate: Candidate) -> SearchSpace[Any]:
        # a space of the user's own without a batch size prices the one that everything is trained with
        fixed = not self.choices.batch_size and not hasattr(self.space, "batch_size")
        return self.space if fixed else space_for(self.space, candidate.training)

    def _cost(self, candidate: Candidate) -> Cost:
        cost = self._priced_space(candidate).cost(candidate.spec)
        if isinstance(self.space, OURS):
            return cost
        # the forward is counted at gate 3, its backward isn't: at most twice as much
        least = 3 * candidate.training.batch_size * cost.forward_flops
        return replace(cost, train_step_flops=max(cost.train_step_flops, least))


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An architecture, and how it is trained."""

    spec: Any
    training: Training


def candidate_seed(seed: int, config: Mapping[str, Any]) -> int:
    """A 63-bit seed that follows from the sweep's and the candidate's configuration alone."""
    text = f"{seed}:{request_digest(config)}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
