"""Counts the torch models that a process runs, each before its first forward: a `safety.meter.Meter`."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from safety.meter import Counted
from search_spaces.measure import Measured, Unmeasurable, measure

_call = nn.Module.__call__


class ModelMeter:
    """Counts every module with parameters that is called from outside of one.

    Parameters are counted exactly. FLOPs are those of the call that comes first, for one sample: it is
    replayed on the meta device, and divided by the first dimension of its first tensor. Models that are
    alive together add up; a part of a model counts with it.

    Not seen: models that run in another process, or whose `forward` is called by its name.
    """

    def __init__(self) -> None:
        self._judge: Callable[[Counted], None] | None = None
        self._models: WeakKeyDictionary[nn.Module, Counted] = WeakKeyDictionary()
        self._refusal: Exception | None = None
        self._within = threading.local()
        self._lock = threading.Lock()
        nn.Module.__call__ = self._patched()  # type: ignore[method-assign]

    def begin(self, judge: Callable[[Counted], None]) -> None:
        """Begin another trial; see `safety.meter.Meter`."""
        self._judge, self._models, self._refusal = judge, WeakKeyDictionary(), None

    def _patched(self) -> Callable[..., Any]:
        meter, within = self, self._within

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or getattr(within, "module", False):
                return _call(module, *args, **kwargs)
            within.module = True
            try:
                meter._see(module, args, kwargs)
                return _call(module, *args, **kwargs)
            finally:
                within.module = False

        return call

    def _see(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if self._judge is None:
            return
        if self._refusal:
            raise self._refusal
        if module in self._models or next(module.parameters(), None) is None:
            return
        with self._lock:
            self._add(_eager(module), args, kwargs)
            # a compiled model is another object than the one that it was made from
            self._models.setdefault(module, Counted(params=0, forward_flops=0))
            try:
                self._judge(self._together())
            except Exception as refusal:
                self._refusal = refusal
                raise

    def _add(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if any(module is part for model in list(self._models) for part in model.modules()):
            return
        for part in module.modules():
            self._models.pop(part, None)  # it counts with the whole from now on
        self._models[module] = count_call(module, args, kwargs)

    def _together(self) -> Counted:
        counts = list(self._models.values())
        flops = [count.forward_flops for count in counts if count.forward_flops is not None]
        return Counted(
            params=sum(count.params for count in counts),
            forward_flops=sum(flops) if len(flops) == len(counts) else None,
            reason="; ".join(count.reason for count in counts if count.reason),
        )


def count_call(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Counted:
    """Parameters of a module, and FLOPs of one call of it per sample, without running or allocating it."""
    with _random_state_kept():
        try:
            found = _measured(module, args, kwargs)
        # whatever a module does on the meta device that it can't: it is told, not hidden
        except Exception as error:
            known = (p for p in module.parameters() if not nn.parameter.is_lazy(p))
            params = sum(parameter.numel() for parameter in known)
            kind = "" if isinstance(error, Unmeasurable) else f"{type(error).__name__}: "
            line = str(error).strip().splitlines()[0] if str(error).strip() else "no reason told"
            return Counted(params=params, forward_flops=None, reason=f"{type(module).__name__}: {kind}{line}")
    return Counted(params=found.params, forward_flops=-(-found.forward_flops // _samples(args, kwargs)))


def _measured(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Measured:
    memo = {id(tensor): _as_meta(tensor) for tensor in _tensors_of(module)}
    inputs = tree_map(_input_as_meta, (args, dict(kwargs)))
    return measure(lambda: _Called(copy.deepcopy(module, memo), *inputs), lambda: ())


class _Called(nn.Module):
    """A module with the arguments of its call."""

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self._args, self._kwargs = args, kwargs

    def forward(self) -> Any:
        """Call it."""
        return self.model(*self._args, **self._kwargs)


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
    for part in module.modules():
        yield from (value for value in vars(part).values() if isinstance(value, Tensor))


def _as_meta(tensor: Tensor) -> Tensor:
    if nn.parameter.is_lazy(tensor):
        lazy: Any = type(tensor)
        unmade: Tensor = lazy(requires_grad=tensor.requires_grad, device="meta", dtype=tensor.dtype)
        return unmade
    empty = torch.empty_like(tensor, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty.requires_grad_(tensor.requires_grad)


def _input_as_meta(value: Any) -> Any:
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value


def _samples(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """How many samples a call has: the first dimension of its first tensor."""
    tensors = (leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor) and leaf.dim())
    return max(1, next((len(tensor) for tensor in tensors), 1))


def _eager(module: nn.Module) -> nn.Module:
    """The module that a compiled one was made from."""
    original = getattr(module, "_orig_mod", module)
    return original if isinstance(original, nn.Module) else module


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """A replay must not change what the trial draws next."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
