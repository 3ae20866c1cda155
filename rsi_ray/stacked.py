"""Trains models of one shape as one batch: their tensors side by side, and one step for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from rsi_ray.device_data import tensor_on
from rsi_ray.folding import Folding
from rsi_ray.scoring import loss_on
from rsi_ray.train import BETAS, Batches, Report, Trainer
from rsi_ray.training import learning_rate_at
from rsi_ray.weights import distinct
from search_spaces.space import Sample

EPSILON = 1e-8
"""AdamW's, as torch has it by default."""

CLIP_EPSILON = 1e-6
"""That of `clip_grad_norm_`."""


def can_stack(build: Callable[[], nn.Module], samples: Mapping[str, Sample]) -> bool:
    """Whether models that are built so may be trained as one batch, and come out as they would alone.

    They can't where training changes more than parameters (buffers that are saved, as of BatchNorm), draws
    random numbers (dropout), decides by its data, or leaves a parameter without a gradient.

    Args:
        build: is called once, on the meta device.
        samples: of every head.
    """
    with torch.device("meta"):
        model = build().train()
        inputs = {
            name: torch.zeros((2, 2, *s.shape), dtype=getattr(torch, s.dtype)) for name, s in samples.items()
        }
    parameters = dict(model.named_parameters())
    plain = all(p.requires_grad and p.dtype == torch.float32 for p in parameters.values())
    if not plain or any(not isinstance(tensor, nn.Parameter) for _, tensor in distinct(model)):
        return False
    leaves = {name: torch.stack([p.detach()] * 2).requires_grad_() for name, p in parameters.items()}
    try:
        with Folding():
            outputs = vmap(lambda w, x: functional_call(model, w, (x,)), randomness="error")(leaves, inputs)
        total = torch.stack([output.float().sum() for output in outputs.values()]).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    except Exception:  # whatever a module does that can't be stacked, it is trained alone
        return False
    return all(gradient is not None for gradient in gradients)


class Stack:
    """Weights and moments of all members, (members, numbers of a model), of which the models have views.

    Args:
        trainers: of models that `can_stack` takes, of one shape, on one device; their trainings differ in
            learning rate and seed alone, and all have done as many epochs. Whoever gives one of them another
            state makes another stack.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self._trainers = trainers
        self._model = trainers[0].model
        self._device = trainers[0].device
        # matrices first, since they alone decay
        named = sorted(self._model.named_parameters(), key=lambda one: one[1].ndim < 2)
        self._shapes = {name: parameter.shape for name, parameter in named}
        first = {id(parameter): name for name, parameter in named}
        # told itself, since `functional_call` would look in every step for the modules that share weights
        every = self._model.named_parameters(remove_duplicate=False)
        self._names = {alias: first[id(parameter)] for alias, parameter in every}
        self._matrices = sum(p.numel() for _, p in named if p.ndim >= 2)
        models = [
            [dict(trainer.model.named_parameters())[name] for name in self._shapes] for trainer in trainers
        ]
        # one after the other, so that no more than one of them is there twice
        self._weights = self._taken(models)
        self._mean, self._square = (self._taken_moments(models, name) for name in ("exp_avg", "exp_avg_sq"))
        self._gradients = torch.empty_like(self._weights)
        self._leaves = {name: view.requires_grad_() for name, view in self._views(self._weights)}
        for name, view in self._views(self._gradients):
            leaf: Any = self._leaves[name]
            leaf.register_post_accumulate_grad_hook(partial(_put, view))

    def run_epoch(self) -> list[Report]:
        """Train one epoch of all of them as each would by itself, but for rounding, and evaluate each."""
        self._model.train()
        total = torch.zeros(len(self._trainers), device=self._device)
        for step, batches in _drawn(self._trainers):
            total += self._step(step, batches)
        for trainer in self._trainers:
            for moments in trainer.optimizer.state.values():
                moments["step"].fill_((trainer.epoch + 1) * trainer.training.steps_per_epoch)
        losses = (total / self._trainers[0].training.steps_per_epoch).tolist()
        return [trainer.end_epoch(loss) for trainer, loss in zip(self._trainers, losses, strict=True)]

    def _step(self, step: int, batches: Sequence[Batches]) -> Tensor:
        """Train all members by one step, and return their losses, (members,)."""
        inputs = _side_by_side([{name: one.inputs for name, one in b.items()} for b in batches], self._device)
        targets = _side_by_side(
            [{name: one.targets for name, one in b.items()} for b in batches], self._device
        )
        with Folding():
            losses = vmap(self._loss, randomness="error")(self._leaves, inputs, targets)
        losses.sum().backward()  # type: ignore[no-untyped-call]  # `_put` has them, one by one
        with torch.no_grad():
            self._update(step, self._gradients)
        return losses.detach()

    def _loss(
        self, weights: Mapping[str, Tensor], inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> Tensor:
        every = {alias: weights[name] for alias, name in self._names.items()}

        def model(one: dict[str, Tensor]) -> dict[str, Tensor]:
            outputs: dict[str, Tensor] = functional_call(self._model, every, (one,), tie_weights=False)
            return outputs

        return loss_on(model, inputs, targets, self._device)

    def _update(self, step: int, gradients: Tensor) -> None:
        """AdamW after clipping, for each member as for one alone; the gradients' memory is used up."""
        training, done = self._trainers[0].training, step + 1
        norms = gradients.norm(dim=1, keepdim=True)
        gradients.mul_((training.max_grad_norm / (norms + CLIP_EPSILON)).clamp_(max=1))
        rates = torch.tensor(
            [[learning_rate_at(step, trainer.training)] for trainer in self._trainers], device=self._device
        )
        self._weights[:, : self._matrices].mul_(1 - rates * training.weight_decay)
        self._mean.lerp_(gradients, 1 - BETAS[0])
        self._square.mul_(BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
        root = torch.sqrt(self._square, out=gradients).div_(sqrt(1 - BETAS[1] ** done)).add_(EPSILON)
        self._weights.sub_(torch.div(self._mean, root, out=root).mul_(rates / (1 - BETAS[0] ** done)))

    def _views(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each tensor's part of a flat one, (members, *shape)."""
        sizes = [shape.numel() for shape in self._shapes.values()]
        for (name, shape), part in zip(self._shapes.items(), torch.split(flat, sizes, dim=1), strict=True):
            yield name, part.view(len(flat), *shape)

    def _taken(self, models: Sequence[Sequence[nn.Parameter]]) -> Tensor:
        """The weights of all in one tensor, of which every model has its part from now on."""
        flat = _beside(models)
        for (_, view), *parameters in zip(self._views(flat), *models, strict=True):
            for parameter, part in zip(parameters, view, strict=True):
                parameter.data = part
        return flat

    def _taken_moments(self, models: Sequence[Sequence[nn.Parameter]], name: str) -> Tensor:
        """The same of one of the optimizer's two; zeros before the first step."""
        pairs = zip(self._trainers, models, strict=True)
        states = [[trainer.optimizer.state[one] for one in model] for trainer, model in pairs]
        if name in states[0][0]:
            flat = _beside([[state[name] for state in one] for one in states])
        else:
            flat = torch.zeros_like(self._weights)
        for (_, view), *several in zip(self._views(flat), *states, strict=True):
            for state, part in zip(several, view, strict=True):
                state.setdefault("step", torch.zeros((), device=self._device))
                state[name] = part
        return flat


def _put(place: Tensor, leaf: Tensor) -> None:
    """Move a gradient to its place, as soon as it is there."""
    if leaf.grad is not None:
        place.copy_(leaf.grad)
        leaf.grad = None


def _beside(members: Sequence[Sequence[Tensor]]) -> Tensor:
    """The numbers of all tensors of each member, (members, numbers)."""
    first = members[0][0]
    flat = first.new_empty(len(members), sum(tensor.numel() for tensor in members[0]))
    for row, tensors in zip(flat, members, strict=True):
        torch.cat([tensor.detach().flatten() for tensor in tensors], out=row)
    return flat


def _side_by_side(members: Sequence[Mapping[str, Any]], device: torch.device) -> dict[str, Tensor]:
    """Arrays or tensors (B, ...) of each member to tensors (members, B, ...) of the device, by name."""
    return {name: torch.stack([tensor_on(one[name], device) for one in members]) for name in members[0]}


def _drawn(trainers: Sequence[Trainer]) -> Iterator[tuple[int, list[Batches]]]:
    """The steps of an epoch with each member's batches; those of one seed are drawn once."""
    first = {trainer.seed: trainer for trainer in reversed(trainers)}
    streams = {seed: trainer.batches() for seed, trainer in first.items()}
    for drawn in zip(*streams.values(), strict=True):
        step = drawn[0][0]
        batches = {seed: batch for seed, (_, batch) in zip(streams, drawn, strict=True)}
        yield step, [batches[trainer.seed] for trainer in trainers]
