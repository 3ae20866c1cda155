"""The referee of the price list: parameters and FLOPs counted from a real module on the meta device.

What it reports is never under the truth: an operator is counted, known to be free, or refused. Seen are
torch's operators, in whatever Python they hide (hooks, custom autograd functions, inference mode, vmap). Not
seen is what leaves torch: numpy, threads, and code written to switch dispatch off; nor that elementwise
arithmetic on operands first copied to full size is a product in disguise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.free_operators import FREE

if TYPE_CHECKING:
    from search_spaces.space import Sample, SearchSpace, SpecT

aten = torch.ops.aten


class Unmeasurable(Exception):
    """The module does something whose FLOPs or parameters cannot be counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a module is.

    Attributes:
        params: numbers in parameters, used or not, frozen or not, shared storage once; in buffers that
            require a gradient; and in tensors of no module that require one and take part in the forward.
        forward_flops: FLOPs of one forward, 1 multiply-accumulate = 2 FLOPs.
    """

    params: int
    forward_flops: int


def measure(build: Callable[[], nn.Module], example: Callable[[], tuple[object, ...]]) -> Measured:
    """Build and run the module on the meta device, where nothing is allocated, and count.

    It runs once, with gradients, in the mode (training or not) that `build` leaves it in.

    Raises:
        Unmeasurable: an operator is neither counted nor known to be free.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.device("meta"):
        module, inputs = build(), example()
        with _Counter() as counter:
            module(*inputs)
    # After the forward: lazy modules make their parameters within it.
    return Measured(params=_count(_trainable(module, counter.trained)), forward_flops=counter.flops)


def measure_space(space: SearchSpace[SpecT], spec: SpecT) -> Measured:
    """Measure what the space builds of a spec on one sample of every head."""

    def of(count: int) -> Measured:
        return measure(lambda: space.build(spec), lambda: (_batch(space.samples(), count),))

    try:
        return of(1)
    except (
        ValueError
    ):  # a batch norm in training takes no single sample: what one adds is told by two and three
        two, three = of(2), of(3)
        return Measured(params=two.params, forward_flops=2 * two.forward_flops - three.forward_flops)


def _batch(samples: Mapping[str, Sample], count: int) -> dict[str, Tensor]:
    return {
        name: torch.zeros((count, *s.shape), dtype=getattr(torch, s.dtype)) for name, s in samples.items()
    }


# Products that torch's own counter takes for free.
_FORMULAS: dict[Any, Callable[..., int]] = {
    aten.mv: lambda matrix, *_, **__: 2 * matrix.numel(),
    aten.addmv: lambda _, matrix, *__, **___: 2 * matrix.numel(),
    aten.dot: lambda vector, *_, **__: 2 * vector.numel(),
    aten.vdot: lambda vector, *_, **__: 2 * vector.numel(),
    aten.addbmm: lambda _, left, right, **__: 2 * left.numel() * right.size(-1),
}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the FLOPs of every operator below autograd, with the formulas of torch's `FlopCounterMode`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.trained: dict[int, Tensor] = {}
        self._formulas = {**FlopCounterMode(display=False).flop_registry, **_FORMULAS}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        operands = list(_tensors((*args, *kwargs.values())))
        self.trained.update((id(t), t) for t in operands if t.requires_grad and t.is_leaf)
        formula = self._formulas.get(packet)
        if formula is None and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        _refuse_real(func, [*operands, out])
        if formula is not None:
            if any(t.is_complex() for t in operands):
                raise Unmeasurable(
                    f"{func}: complex operands, whose products cost more than the formulas say"
                )
            self.flops += formula(*args, **kwargs, out_val=out)
        elif torch.Tag.pointwise in func.tags:
            self.flops += _outer_product(operands, out)
        elif not (func.is_view or packet.__name__ in FREE):
            raise Unmeasurable(f"{func}: neither counted nor known to be free")
        return out


def _is_composite(func: Any) -> bool:
    """Whether the operator is only a sequence of others, which shows where autograd has not split it."""
    key = torch.DispatchKey.CompositeImplicitAutograd
    return bool(func.has_kernel_for_dispatch_key(key))


def _refuse_real(func: Any, tree: object) -> None:
    """Real data can leave torch and be computed with elsewhere; single numbers are let through."""
    if any(not t.is_meta and t.dim() for t in _tensors(tree)):
        raise Unmeasurable(f"{func}: a tensor with data, expected the meta device only")


def _outer_product(operands: list[Tensor], out: object) -> int:
    """2 FLOPs an element where elementwise arithmetic makes more numbers than any operand holds, else 0.

    That is how a matrix product is written by hand: broadcast, multiply, sum.
    """
    results = [t.numel() for t in _tensors(out) if t.is_floating_point() or t.is_complex()]
    if len(operands) < 2 or not results or max(results) <= max(map(_numbers, operands)):
        return 0
    return 2 * max(results)


def _numbers(tensor: Tensor) -> int:
    """Numbers that a tensor really holds: expanded dimensions and overlapping windows are views of fewer."""
    held = math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return min(held, tensor.untyped_storage().nbytes() // tensor.element_size())


def _tensors(tree: object) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _tensors(item)


def _trainable(module: nn.Module, trained: Mapping[int, Tensor]) -> list[Tensor]:
    buffers = [b for b in module.buffers() if b.requires_grad or isinstance(b, nn.Parameter)]
    found = {id(t): t for t in (*module.parameters(), *buffers)}
    return list({**found, **trained}.values())


def _count(tensors: list[Tensor]) -> int:
    """Numbers in the tensors; views of one storage count together, up to the numbers that it holds."""
    by_storage: dict[int, list[Tensor]] = {}
    for tensor in tensors:
        if nn.parameter.is_lazy(tensor):
            raise Unmeasurable("a lazy parameter that the forward left without a shape")
        by_storage.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)
    return sum(_count_views(views) for views in by_storage.values())


def _count_views(views: list[Tensor]) -> int:
    held = views[0].untyped_storage().nbytes() // min(_bytes(view) for view in views)
    return min(held, sum(view.numel() * (2 if view.is_complex() else 1) for view in views))


def _bytes(tensor: Tensor) -> int:
    """Bytes of one real number of the tensor."""
    return tensor.element_size() // (2 if tensor.is_complex() else 1)
