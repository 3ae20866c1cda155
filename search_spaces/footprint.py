"""What one sample needs of the module that a space builds, counted in one forward on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, cast

import torch.nn.functional as F
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from search_spaces.measure import Unmeasurable, measure_space
from search_spaces.per_sample import PerSample
from search_spaces.space import Sample, SpecT

if TYPE_CHECKING:
    from search_spaces.measured import Buildable
    from search_spaces.space import SearchSpace

# The outputs themselves, their log-softmax, and its gradient.
COPIES_OF_OUTPUTS = 3


def footprint(space: Buildable[SpecT], spec: SpecT) -> PerSample:
    """Measure parameters and FLOPs as the referee does, and what the forward keeps for the backward.

    Kept are the storages that autograd saves, each once, without parameters and buffers, and three times the
    outputs for the loss. Attention without dropout is taken to be fused, as it is on CPU and CUDA: of it,
    its inputs and its result are kept, and no matrix of scores.

    Raises:
        Unmeasurable: an operator is neither counted nor known to be free; the message names space and spec.
    """
    kept = _Kept()
    watched = _Watched(space, kept)
    try:
        with kept, saved_tensors_hooks(kept.keep, lambda tensor: tensor):
            measured = measure_space(cast("SearchSpace[SpecT]", watched), spec)
    except Unmeasurable as error:
        raise Unmeasurable(f"{type(space).__name__}: {spec!r} can't be priced: {error}") from error
    module = watched.module
    parameters, buffers = _storages(module.parameters()), _storages(module.buffers())
    activations = sum(size for key, size in _sizes(kept.storages) if key not in parameters | buffers)
    kept_bytes = activations + COPIES_OF_OUTPUTS * watched.output_bytes
    return PerSample(
        params=measured.params,
        forward_flops=measured.forward_flops,
        kept_bytes=-(-kept_bytes // watched.batch),
        buffer_bytes=sum(size for key, size in _sizes(buffers) if key not in parameters),
    )


class _Watched(Generic[SpecT]):
    """A space that remembers what it built, how much that answered, and to how many samples."""

    def __init__(self, space: Buildable[SpecT], kept: _Kept) -> None:
        self._space, self._kept = space, kept
        self.module: nn.Module = nn.Module()
        self.output_bytes, self.batch = 0, 1

    def samples(self) -> Mapping[str, Sample]:
        return self._space.samples()

    def build(self, spec: SpecT) -> nn.Module:
        self._kept.storages.clear()  # the last forward counts, where it takes more than one
        self.module = self._space.build(spec)
        self.module.register_forward_hook(self._note)
        return self.module

    def _note(self, module: nn.Module, inputs: tuple[Any, ...], outputs: Mapping[str, Tensor]) -> None:
        del module
        self.batch = next(iter(inputs[0].values())).size(0)
        self.output_bytes = sum(output.nbytes for output in outputs.values())


class _Kept(TorchFunctionMode):
    """Collects the storages that autograd saves."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, UntypedStorage] = {}
        self._is_fused = False

    def keep(self, tensor: Tensor) -> Tensor:
        if not self._is_fused:
            self.storages.update(_storages([tensor]))
        return tensor

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or _dropout(*args, **kwargs):
            return func(*args, **kwargs)
        # The meta device has no fused kernel: torch writes attention out, and saves the scores.
        self._is_fused = True
        try:
            out = func(*args, **kwargs)
        finally:
            self._is_fused = False
        if out.requires_grad:
            tensors = (*args, *kwargs.values(), out)
            self.storages.update(_storages(t for t in tensors if isinstance(t, Tensor)))
        return out


def _dropout(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    **_: Any,
) -> float:
    """The dropout of a call of `scaled_dot_product_attention`."""
    del query, key, value, attn_mask
    return dropout_p


def _storages(tensors: Iterable[Tensor]) -> dict[int, UntypedStorage]:
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage for storage in storages}


def _sizes(storages: Mapping[int, UntypedStorage]) -> list[tuple[int, int]]:
    return [(key, storage.nbytes()) for key, storage in storages.items()]
