"""Zero-cost proxies: candidates ranked at their initialisation, for a training step each or less."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from rsi_ray.cuda_memory import hold_to
from rsi_ray.scoring import loss_of
from rsi_ray.tasks.task import Batch
from rsi_ray.train import build
from rsi_ray.training_job import TrainingJob
from safety import Claim

Batches = Mapping[str, Batch]
Loss = Callable[[nn.Module, Batches, torch.device], Tensor]
Values = Mapping[str, float]

DOUBLES_BYTES = 4
"""Of each parameter, by which `synflow` goes beyond a training: weight and gradient in float64."""

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _BatchNorm)
# operators that let pass what is positive, by their names in torch
RECTIFIERS = ("relu", "relu_", "gelu", "silu", "silu_", "elu", "elu_", "leaky_relu", "hardswish", "mish")
# bits that are set in each byte: numpy 1 can't count them
BITS = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def synflow(model: nn.Module, batches: Batches, loss: Loss) -> float:
    """Return the logarithm of the synaptic flow: the sum over weights of |weight x its gradient|.

    The gradient is that of all outputs' sum where every weight is its absolute value and every input is one.
    Tokens have no ones: the output of their embedding is one instead. No label, sample or loss
    matters. A norm divides by its input's size as by a constant: as it is, it would scale all flow before it
    away, and left out, as in the second source, the gates of a deep model multiply beyond any number.

    Source: Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic
    flow", NeurIPS 2020; as a proxy Abdelfattah et al. (see `grad_norm`).
    """
    del loss
    # doubles: the flow of a deep model without norms is beyond a float32
    flowing = copy.deepcopy(model).double().eval()
    device = _device(model)
    with torch.no_grad():
        for parameter in flowing.parameters():
            parameter.abs_()
    with _linear(flowing):
        outputs = flowing({name: _ones(batch, device) for name, batch in batches.items()})
        torch.stack([output.sum() for output in outputs.values()]).sum().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():  # in place: a copy may have no room
        flows = [p.mul_(p.grad).abs_().sum() for p in flowing.parameters() if p.grad is not None]
    return _log(float(torch.stack(flows).sum()))


def naswot(model: nn.Module, batches: Batches, loss: Loss) -> float:
    """Return how differently samples activate the model: the mean over heads of log det of their kernel.

    A sample's code is one bit for each unit before a rectifier: whether it is positive; that is ReLU's own
    linear region, and for gelu and silu the side on which they let pass. The kernel of two samples is the
    number of bits in which their codes agree. One is added to its diagonal, so that two samples of one code
    don't make it singular.

    Source: Mellor et al., "Neural architecture search without training", ICML 2021.
    """
    del loss
    model.eval()
    device, values = _device(model), []
    for name, batch in batches.items():
        with torch.inference_mode(), _Codes() as codes:
            model({name: torch.from_numpy(batch.inputs).to(device)})
        values.append(_log_determinant(codes.packed(len(batch.inputs))))
    return sum(values) / len(values)


def grad_norm(model: nn.Module, batches: Batches, loss: Loss) -> float:
    """Return the sum over weight matrices of the norm of the loss's gradient on one batch.

    Source: Abdelfattah et al., "Zero-cost proxies for lightweight NAS", ICLR 2021.
    """
    model.eval()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    gradients = torch.autograd.grad(loss(model, batches, _device(model)), matrices, allow_unused=True)
    return float(sum(gradient.norm().item() for gradient in gradients if gradient is not None))


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxy:
    """A number that a model has before it is trained.

    Attributes:
        measure: the number; more is better.
        forwards: FLOPs that it computes, in forwards of one sample; told the size of the batch.
        samples: of the batch that it looks at, at most.
    """

    measure: Callable[[nn.Module, Batches, Loss], float]
    forwards: Callable[[int], int]
    samples: int | None = None


PROXIES: Mapping[str, Proxy] = MappingProxyType(
    {
        "synflow": Proxy(measure=synflow, forwards=lambda _: 3, samples=1),
        "naswot": Proxy(measure=naswot, forwards=lambda size: size),
        "grad_norm": Proxy(measure=grad_norm, forwards=lambda size: 3 * size),
    }
)
"""By name. A backward is taken for two forwards: the dearest costs a training step, all three 1.4 of them."""


def proxies_flops(names: Sequence[str], forward_flops: int, batch_size: int) -> int:
    """Return the FLOPs of proxies of one candidate, matrix products as in its price.

    Args:
        names: of the proxies.
        forward_flops: of one sample of every head.
        batch_size: samples per head.
    """
    return forward_flops * sum(PROXIES[name].forwards(batch_size) for name in names)


def screening_claim(
    job: TrainingJob, configs: Sequence[Mapping[str, Any]], proxies: Sequence[str] = tuple(PROXIES)
) -> Claim:
    """Return what it takes to screen candidates one after the other: to be reserved before `screen`.

    Raises:
        ValueError: there are no candidates.
    """
    claims = [job.by_one().price(config) for config in configs]
    if not claims:
        raise ValueError("configs: none, expected one candidate or more to screen")
    size = job.training.batch_size
    return replace(
        claims[0],
        params=max(claim.params for claim in claims),
        forward_flops=max(claim.forward_flops for claim in claims),
        memory_bytes=max(claim.memory_bytes + DOUBLES_BYTES * claim.params for claim in claims),
        train_flops=sum(proxies_flops(proxies, claim.forward_flops, size) for claim in claims),
        reports=1,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Screened:
    """A candidate as the proxies see it.

    Attributes:
        index: its place among those that were screened.
        values: by proxy.
        rank: mean of its ranks by each proxy, from 1 for the best.
    """

    index: int
    values: Values
    rank: float


def screen(
    job: TrainingJob,
    configs: Sequence[Mapping[str, Any]],
    *,
    best: int,
    seed: int,
    proxies: Sequence[str] = tuple(PROXIES),
) -> list[Screened]:
    """Build every candidate, measure it at its initialisation, and return the best, best first.

    All are measured on one batch; their first weights and the batch follow from the seed alone.

    Args:
        job: what they are candidates of.
        configs: of the candidates.
        best: how many are returned.
        seed: of weights and batch.
        proxies: by name.
    """
    hold_to(screening_claim(job, configs, proxies).memory_bytes, job.device)
    batches = job.task.batch(np.random.default_rng(seed), job.training.batch_size)

    def values(config: Mapping[str, Any]) -> Values:  # one model after the other
        model = build(job.space, job.candidate(config).spec, seed=seed, device=job.device)
        return measured(model, batches, loss_of, proxies)

    return by_rank([*map(values, configs)])[:best]


def measured(
    model: nn.Module, batches: Batches, loss: Loss, proxies: Sequence[str] = tuple(PROXIES)
) -> Values:
    """Return a model's values by proxy, each on no more samples than it looks at."""
    found = {}
    for name in proxies:
        some = slice(PROXIES[name].samples)
        seen = {
            head: Batch(inputs=batch.inputs[some], targets=batch.targets[some])
            for head, batch in batches.items()
        }
        found[name] = PROXIES[name].measure(model, seen, loss)
    return found


def by_rank(values: Sequence[Values]) -> list[Screened]:
    """Order candidates by the mean of their ranks; more is better, no number is worst, ties stay in order."""
    names = values[0] if values else ()
    ranks = [ranked([one[name] for one in values]) for name in names]
    screened = [
        Screened(index=index, values=one, rank=float(np.mean([rank[index] for rank in ranks])))
        for index, one in enumerate(values)
    ]
    return sorted(screened, key=lambda one: one.rank)


def ranked(values: Sequence[float]) -> NDArray[np.float64]:
    """Return ranks from 1 for the largest value, the mean one for equals; NaN counts as the least of all."""
    numbers = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    _, places, counts = np.unique(-numbers, return_inverse=True, return_counts=True)
    means: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[places]


class _Codes(TorchDispatchMode):
    """Keeps, of every rectifier that is computed, which of its inputs are positive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._codes: list[NDArray[np.bool_]] = []

    def packed(self, samples: int) -> NDArray[np.uint8]:
        """A row of bits for each sample, eight to a byte; (samples, 0) where nothing was rectified."""
        codes = [code.reshape(samples, -1) for code in self._codes]
        return np.packbits(np.concatenate([np.zeros((samples, 0), dtype=bool), *codes], axis=1), axis=1)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__ in RECTIFIERS:
            self._codes.append((args[0] > 0).cpu().numpy())
        return func(*args, **(kwargs or {}))


def _log_determinant(packed: NDArray[np.uint8]) -> float:
    """Log det of the agreements of rows of bits, and one on the diagonal; padding bits agree everywhere."""
    differing = np.stack([BITS[packed ^ row].sum(axis=1, dtype=np.int64) for row in packed])
    kernel = 8 * packed.shape[1] - differing + np.eye(len(packed))
    return float(np.linalg.slogdet(kernel)[1])


@contextmanager
def _linear(model: nn.Module) -> Iterator[None]:
    """Let norms divide by a constant, and embeddings of tokens answer with ones."""
    hooks = [
        module.register_forward_hook(_divided if isinstance(module, NORMS) else _answer_ones)
        for module in model.modules()
        if isinstance(module, (*NORMS, nn.Embedding))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _divided(norm: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
    """The input by the root of its mean square, through which no gradient flows."""
    (x,) = inputs
    shape: Sequence[int] = getattr(norm, "normalized_shape", x.shape[1:])
    size = x.detach().square().mean(tuple(range(-len(shape), 0)), keepdim=True).sqrt()
    return x / size.clamp_min(torch.finfo(x.dtype).tiny)


def _answer_ones(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return torch.ones_like(output)


def _ones(batch: Batch, device: torch.device) -> Tensor:
    """Ones of the shape of the inputs, as doubles; tokens stay as they are."""
    inputs = torch.from_numpy(batch.inputs).to(device)
    return torch.ones_like(inputs, dtype=torch.float64) if inputs.is_floating_point() else inputs


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
