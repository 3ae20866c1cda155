"""Modules that hide parameters or FLOPs from a counter, each with its truth worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from search_spaces.measure import Measured, Unmeasurable, measure

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """A module, the shapes of its inputs, and its true numbers.

    Attributes:
        flops: of its products; where None, it is a product that must be refused.
    """

    build: Callable[[], nn.Module]
    inputs: Sequence[Shape]
    params: int = 0
    flops: int | None = 0

    def measured(self) -> Measured | None:
        """What the referee says, None where it refuses."""
        try:
            return measure(self.build, lambda: tuple(torch.randn(shape) for shape in self.inputs))
        except Unmeasurable:
            return None

    def is_under_counted(self) -> bool:
        """Whether the referee says less than the truth."""
        measured = self.measured()
        if measured is None:
            return False
        return self.flops is None or measured.params < self.params or measured.forward_flops < self.flops


class Calls(nn.Module):
    """Calls a function of its inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        """The function's result."""
        return self.function(*inputs)


class Tied(nn.Module):
    """Two parameters over one storage: 12 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.randn(3, 4))
        self.other = nn.Parameter(self.one.data.t())

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4) to (B, 4)."""
        return x @ self.one.t() @ self.other.t()


class Flat(nn.Module):
    """Two parameters in one storage that share nothing: 24 numbers, 12 of them frozen and unused."""

    def __init__(self) -> None:
        super().__init__()
        storage = torch.randn(24)
        self.one = nn.Parameter(storage[:12].view(3, 4))
        self.other = nn.Parameter(storage[12:].view(3, 4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4) to (B, 3)."""
        return F.linear(x, self.one)


class Hidden(nn.Module):
    """A trainable tensor in a list and one in a buffer: 12 + 9 numbers that `parameters()` leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = [torch.randn(3, 4, requires_grad=True)]
        self.register_buffer("buffer", torch.randn(3, 3, requires_grad=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4) to (B, 3)."""
        return F.linear(x, self.weights[0])


class Hooked(nn.Module):
    """A product in a hook, after a linear layer of 16 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4, bias=False)
        self.linear.register_forward_hook(lambda _module, _inputs, out: out @ out.t() @ out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4) to (B, 4)."""
        return cast("Tensor", self.linear(x))


class Product(torch.autograd.Function):
    """A matrix product that autograd is told nothing of."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        """x @ y."""
        return x @ y

    @staticmethod
    def backward(_ctx: Any, *_gradients: Tensor) -> Any:
        """None."""
        return None, None


def without_gradients(x: Tensor, y: Tensor) -> Tensor:
    """x @ y, in inference mode, where composite operators stay whole."""
    with torch.inference_mode():
        return F.linear(x, y)


def checkpointed(x: Tensor, y: Tensor) -> Any:
    """x @ y, computed again in the backward."""
    return checkpoint(torch.mm, x, y, use_reentrant=False)


def real_data(x: Tensor) -> Tensor:
    """A product of tensors that hold data, done by numpy."""
    data = torch.ones(4, 4, device="cpu").numpy()
    return x + float((data @ data).sum())


def attention(**options: Any) -> Callable[..., Tensor]:
    """Attention with these options."""
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options)


def masked_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention with a mask of its own."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(8, 8, dtype=torch.bool))


def half_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in bfloat16."""
    return F.scaled_dot_product_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), is_causal=True)


def calls(function: Callable[..., Any], *inputs: Shape, flops: int | None) -> Adversary:
    """An adversary without parameters."""
    return Adversary(build=lambda: Calls(function), inputs=inputs, flops=flops)


def encoder_layer() -> nn.Module:
    """A layer that has a fused path in evaluation: 4 * 64 + 32 + 2 * 128 + 24 + 2 * 16 numbers."""
    return nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.0, batch_first=True).eval()


QKV = ((1, 4, 8, 4),) * 3
ATTENTION = 4 * 4 * 8 * 8 * 4
RECURRENT = 2 * 4 * (8 * 8 + 8 * 8)
PRODUCT = 2 * 3 * 4 * 5
M, N = (3, 4), (4, 5)

PARAMETERS = {
    "tied": Adversary(build=Tied, inputs=[(2, 4)], params=12, flops=2 * 2 * 24),
    "flat storage": Adversary(build=Flat, inputs=[(2, 4)], params=24, flops=2 * 24),
    "hidden tensors": Adversary(build=Hidden, inputs=[(2, 4)], params=21, flops=2 * 24),
    "lazy": Adversary(build=lambda: nn.LazyLinear(3), inputs=[(2, 4)], params=15, flops=2 * 24),
    "hook": Adversary(build=Hooked, inputs=[(2, 4)], params=16, flops=2 * 32 + 2 * 16 + 2 * 16),
    "lstm": Adversary(build=lambda: nn.LSTM(8, 8), inputs=[(3, 2, 8)], params=576, flops=3 * 2 * RECURRENT),
    "gru": Adversary(
        build=lambda: nn.GRU(8, 8), inputs=[(3, 2, 8)], params=432, flops=3 * 2 * RECURRENT * 3 // 4
    ),
    "attention layer": Adversary(
        build=lambda: nn.MultiheadAttention(8, 2),
        inputs=[(3, 2, 8)] * 3,
        params=4 * 64 + 32,
        flops=2 * 6 * 4 * 64 + 2 * 4 * 3 * 3 * 8,
    ),
    "encoder layer in evaluation": Adversary(
        build=encoder_layer,
        inputs=[(2, 3, 8)],
        params=4 * 64 + 32 + 2 * 128 + 24 + 2 * 16,
        flops=2 * 6 * (4 * 64 + 2 * 128) + 2 * 4 * 3 * 3 * 8,
    ),
    "grouped convolution": Adversary(
        build=lambda: nn.Conv1d(4, 6, 3, groups=2, bias=False),
        inputs=[(1, 4, 8)],
        params=36,
        flops=2 * 6 * 6 * 2 * 3,
    ),
    "transposed convolution": Adversary(
        build=lambda: nn.ConvTranspose1d(4, 6, 3, bias=False),
        inputs=[(1, 4, 8)],
        params=72,
        flops=2 * 8 * 4 * 6 * 3,
    ),
    "bilinear": Adversary(
        build=lambda: nn.Bilinear(4, 5, 6), inputs=[(2, 4), (2, 5)], params=126, flops=None
    ),
}

PRODUCTS = {
    "einsum": calls(lambda x, y: torch.einsum("ij,jk->ik", x, y), M, N, flops=PRODUCT),
    "matrix times vector": calls(lambda x, y: x @ y, M, (4,), flops=24),
    "batch times vector": calls(lambda x, y: x @ y, (2, 3, 4), (4,), flops=48),
    "addmv": calls(torch.addmv, (3,), M, (4,), flops=24),
    "dot": calls(torch.dot, (4,), (4,), flops=8),
    "vdot": calls(torch.vdot, (4,), (4,), flops=8),
    "baddbmm": calls(torch.baddbmm, (2, 3, 5), (2, 3, 4), (2, 4, 5), flops=2 * PRODUCT),
    "addbmm": calls(torch.addbmm, (3, 5), (2, 3, 4), (2, 4, 5), flops=2 * PRODUCT),
    "broadcast and sum": calls(lambda x, y: (x[:, :, None] * y[None]).sum(1), M, N, flops=PRODUCT),
    "expanded and sum": calls(
        lambda x, y: (x[:, :, None].expand(3, 4, 5) * y[None].expand(3, 4, 5)).sum(1), M, N, flops=PRODUCT
    ),
    "expanded slices and sum": calls(
        lambda x, y: (x[:3, :, None].expand(3, 4, 5) * y[None, :4].expand(3, 4, 5)).sum(1),
        (30, 4),
        (40, 5),
        flops=PRODUCT,
    ),
    "windows and sum": calls(lambda x, w: (x.unfold(0, 3, 1) * w).sum(-1), (10,), (3,), flops=2 * 8 * 3),
    "distances by hand": calls(lambda x, y: (x[:, None] - y).square().sum(-1), M, (5, 4), flops=PRODUCT),
    "custom function": calls(Product.apply, M, N, flops=PRODUCT),
    "inference mode": calls(without_gradients, M, (5, 4), flops=PRODUCT),
    "vmap": calls(torch.vmap(torch.mv), (2, 3, 4), (2, 4), flops=48),
    "checkpoint": calls(checkpointed, M, N, flops=PRODUCT),
    "causal attention": calls(attention(is_causal=True), *QKV, flops=ATTENTION),
    "masked attention": calls(masked_attention, *QKV, flops=ATTENTION),
    "grouped attention": calls(
        attention(enable_gqa=True), (1, 4, 8, 4), (1, 2, 8, 4), (1, 2, 8, 4), flops=ATTENTION
    ),
    "half precision": calls(half_attention, *QKV, flops=ATTENTION),
    "cdist": calls(torch.cdist, (30, 4), (40, 4), flops=None),
    "complex": calls(lambda x: x.to(torch.complex64) @ x.to(torch.complex64), (4, 4), flops=None),
    "fourier": calls(torch.fft.rfft, (2, 8), flops=None),
    "inverse": calls(torch.linalg.inv, (4, 4), flops=None),
    "solve": calls(torch.linalg.solve, (4, 4), (4,), flops=None),
    "addr": calls(torch.addr, (3, 4), (3,), (4,), flops=None),
    "convolution over time": calls(torch.conv_tbc, (8, 1, 2), (3, 2, 4), (4,), flops=None),
    "numpy": calls(real_data, (4,), flops=None),
}

ADVERSARIES = {**PARAMETERS, **PRODUCTS}
