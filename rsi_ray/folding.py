"""Operators of stacked models that are computed as one of all members: `vmap` has no good rule for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Folding(TorchFunctionMode):
    """Under `vmap`, folds the members into the batch of an attention, and into the groups of a group norm.

    The fused attention for CPUs has no rule, and the rule for a group norm keeps its result twice.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the function, or its folded kind where it is called in a way that this knows."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and _is_plain_attention(args, kwargs):
            return _Attention.apply(*args, kwargs)  # type: ignore[no-untyped-call]
        if func is F.group_norm:
            return _normed(*args, **kwargs)
        return func(*args, **kwargs)


def _is_plain_attention(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Without mask and dropout, of tensors with a batch."""
    return len(args) == 3 and kwargs.keys() <= {"is_causal", "scale"} and all(one.ndim >= 3 for one in args)


def _normed(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    """A group norm, folded where it has gain and bias; the names are torch's."""
    if weight is None or bias is None:
        return F.group_norm(input, num_groups, weight, bias, eps)
    return _GroupNorm.apply(input, num_groups, weight, bias, eps)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    """Attention whose rule for `vmap` is all that is used of it; autograd sees what the rule calls."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, **options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *given: Any) -> tuple[Tensor, int]:
        *tensors, options = given
        count = info.batch_size
        query, key, value = (
            _first(one, dim, count).flatten(0, 1) for one, dim in zip(tensors, in_dims[:3], strict=True)
        )
        out = F.scaled_dot_product_attention(query, key, value, **options)
        return out.view(count, -1, *out.shape[1:]), 0


class _GroupNorm(torch.autograd.Function):
    """The same of a group norm."""

    @staticmethod
    def forward(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return F.group_norm(x, groups, weight, bias, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        groups: int,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> tuple[Tensor, int]:
        count = info.batch_size
        # members beside channels, as a convolution of all of them leaves them
        folded = _first(x, in_dims[0], count).movedim(0, 1).flatten(1, 2)
        gain, offset = (_first(*one, count).flatten() for one in ((weight, in_dims[2]), (bias, in_dims[3])))
        out = F.group_norm(folded, count * groups, gain, offset, eps)
        return out.view(len(out), count, -1, *out.shape[2:]), 1


def _first(tensor: Tensor, dim: int | None, count: int) -> Tensor:
    """A tensor with the members first, expanded where they all have the same."""
    return tensor.expand(count, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
