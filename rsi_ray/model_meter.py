"""Counts the torch models that a process runs, each before its first forward: a `safety.meter.Meter`."""

from __future__ import annotations

import copy
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch._dynamo.comptime import comptime
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils._pytree import tree_leaves, tree_map

from safety.meter import Counted
from search_spaces.measure import Measured, Unmeasurable, measure

_call = nn.Module.__call__
_UNTOLD = object()


class ModelMeter:
    """Counts every module with parameters that is called, but for those that count with one around them.

    Parameters are counted exactly. FLOPs are those of the call that comes first, for one sample: it is
    replayed on the meta device without the hooks of the model, and divided by the number of its samples. That
    is the first dimension of its first tensor; the second where a part is sequence-first (`batch_first` is
    False); one where that tensor is a floating vector, or a sequence without a batch. Models that are alive
    together add up; a part that is registered in a model counts with it, one in a plain list by itself.

    A module that a compiled function calls counts when the function is traced, with the shapes of that trace.

    Not seen: models that run in another process, whose `forward` is called by its name, or that are called in
    compiled code that reached the process ready-made.
    """

    def __init__(self) -> None:
        self._judge: Callable[[Counted], None] | None = None
        self._forget()
        self._within = threading.local()
        self._lock = threading.Lock()
        # after torch._dynamo was imported, which else would take the patch for torch's own and step over it
        nn.Module.__call__ = self._patched()  # type: ignore[method-assign]

    def _forget(self) -> None:
        self._models: WeakKeyDictionary[nn.Module, Counted] = WeakKeyDictionary()
        # of each module that was called, those that were registered in it then
        self._parts: WeakKeyDictionary[nn.Module, WeakSet[nn.Module]] = WeakKeyDictionary()
        self._refusal: Exception | None = None

    def begin(self, judge: Callable[[Counted], None]) -> None:
        """Begin another trial; see `safety.meter.Meter`."""
        self._judge = judge
        self._forget()
        torch.compiler.reset()  # what is compiled already would run without being traced

    def _patched(self) -> Callable[..., Any]:
        within, see_traced = self._within, self._see_traced

        def traced(context: Any) -> None:
            see_traced(context)

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():
                comptime(traced)
                return _call(module, *args, **kwargs)
            outer = getattr(within, "calls", ())
            if getattr(within, "replays", False) or any(one.covers(module) for one in outer):
                return _call(module, *args, **kwargs)
            replayed = self._see(module, args, kwargs)
            within.calls = (*outer, _Covering(self._covered(module), module if replayed else None))
            try:
                return _call(module, *args, **kwargs)
            finally:
                within.calls = outer

        return call

    def _see_traced(self, context: Any) -> None:
        """A compiled function is being traced, and calls a module."""
        if getattr(self._within, "replays", False):
            return
        module = context.get_local("module")._i_will_not_complain_if_bc_breaks_VariableTracker().value
        if self._refusal or not self._is_counted(module):
            self._see(module, *_traced_arguments(context))

    def _covered(self, module: nn.Module) -> WeakSet[nn.Module]:
        parts = self._parts.get(module)
        if parts is None:
            parts = self._parts[module] = WeakSet(module.modules())
        return parts

    def _see(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Count a module that isn't yet; whether this very call was replayed to its end."""
        if self._judge is None:
            return False
        if self._refusal:
            raise self._refusal
        if next(module.parameters(), None) is None or self._is_counted(module):
            return False
        with self._lock:
            eager = _eager(module)
            if not self._is_counted(eager):
                self._add(eager, args, kwargs)
            # a compiled model is another object than the one that it was made from
            self._models.setdefault(module, Counted(params=0, forward_flops=0))
            try:
                self._judge(self._together())
            except Exception as refusal:
                self._refusal = refusal
                raise
            return self._models[module].forward_flops is not None

    def _is_counted(self, module: nn.Module) -> bool:
        return any(module in self._covered(model) for model in list(self._models))

    def _add(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._parts[module] = WeakSet(module.modules())
        for part in module.modules():
            self._models.pop(part, None)  # it counts with the whole from now on
        self._within.replays = True
        try:
            self._models[module] = count_call(module, args, kwargs)
        finally:
            self._within.replays = False

    def _together(self) -> Counted:
        counts = list(self._models.values())
        flops = [count.forward_flops for count in counts if count.forward_flops is not None]
        return Counted(
            params=sum(count.params for count in counts),
            forward_flops=sum(flops) if len(flops) == len(counts) else None,
            reason="; ".join(count.reason for count in counts if count.reason),
        )


class _Covering:
    """A call under way, and which modules count with the one that is called.

    Args:
        parts: those that were registered in it when it was counted.
        growing: the module itself while what it adds in its call was added, and counted, in the replay.
    """

    def __init__(self, parts: WeakSet[nn.Module], growing: nn.Module | None) -> None:
        self._parts = parts
        self._growing = growing

    def covers(self, module: nn.Module) -> bool:
        if module not in self._parts and self._growing is not None:
            self._parts.update(self._growing.modules())
        return module in self._parts


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
    samples = _samples(module, args, kwargs)
    return Counted(params=found.params, forward_flops=-(-found.forward_flops // samples))


def _measured(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Measured:
    memo = {id(tensor): _as_meta(tensor) for tensor in _tensors_of(module)}
    inputs = tree_map(_input_as_meta, (args, dict(kwargs)))
    return measure(lambda: _Called(_without_hooks(copy.deepcopy(module, memo)), *inputs), lambda: ())


def _without_hooks(model: nn.Module) -> nn.Module:
    for part in model.modules():
        if not isinstance(part, LazyModuleMixin):  # it makes its parameters in one
            for hooks in (part._forward_hooks, part._forward_pre_hooks):
                hooks.clear()
            for hooks in (part._backward_hooks, part._backward_pre_hooks):
                hooks.clear()
    return model


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


def _traced_arguments(context: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call that is traced; without those that a trace can't tell, no call can be replayed."""
    try:
        traced = tuple(context.get_local(name).as_proxy() for name in ("args", "kwargs"))
        args, kwargs = tree_map(_traced_as_meta, traced)
    except Exception:
        return (_UNTOLD,), {"": _UNTOLD}
    return args, kwargs


def _traced_as_meta(value: Any) -> Any:
    """An argument in a trace: a tensor is a proxy that knows its shape."""
    if not isinstance(value, torch.fx.Proxy):
        return value
    example = value.node.meta["example_value"]
    if not isinstance(example, Tensor):
        return example
    # a size that isn't fixed has an example too; to ask for its value would fix it
    shape = [size.node.hint if isinstance(size, torch.SymInt) else size for size in example.shape]
    return torch.empty(shape, dtype=example.dtype, device="meta", requires_grad=example.requires_grad)


def _samples(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """How many samples a call has, told by its first tensor."""
    tensors = (leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor) and leaf.dim())
    first = next(tensors, None)
    if first is None or (first.dim() == 1 and first.is_floating_point()):
        return 1
    sequence_first = any(getattr(part, "batch_first", None) is False for part in module.modules())
    if sequence_first and first.dim() == 2:
        return 1
    return max(1, first.shape[1 if sequence_first and first.dim() == 3 else 0])


def _eager(module: nn.Module) -> nn.Module:
    """The module that a compiled one was made from."""
    original = getattr(module, "_orig_mod", module)
    return original if isinstance(original, nn.Module) else module


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """A replay must not change what the trial draws next."""
    numpy = sys.modules.get("numpy")
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy_state = numpy.random.get_state() if numpy else None
    try:
        yield
    finally:
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        if numpy:
            numpy.random.set_state(numpy_state)
