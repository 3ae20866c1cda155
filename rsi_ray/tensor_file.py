"""Safetensors files, written and read one tensor after the other: a state is as large as what is trained."""

from __future__ import annotations

import json
import struct
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from safety import check_plain_file

Whole = Callable[[Tensor], Tensor]

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}
"""As the format calls them."""


def write_tensors(
    tensors: Mapping[str, Tensor],
    file: BinaryIO | None,
    *,
    whole: Whole = torch.Tensor.detach,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file as `safetensors.torch.save_file` does, but hold no copy of more than one tensor.

    Args:
        tensors: by name; of those that several processes share out, the shape is that of the whole.
        file: None for a process that only takes part in making each of them whole.
        whole: gives all of a tensor; every process calls it for the same ones in the same order.
        metadata: of the file.

    Raises:
        ValueError: a tensor's type is none of `DTYPES`.
        OSError: it can't be written.
    """
    # larger numbers first: each lies where a multiple of its size is
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    if file:
        told = _header({name: tensors[name] for name in names}, metadata)
        header = json.dumps(told, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        file.write(struct.pack("<Q", len(header)) + header)
    for name in names:
        found = whole(tensors[name])
        if file:
            file.write(found.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{name}: {tensor.dtype} can't be written, expected one of {[*DTYPES]}")
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [start, end],
        }  # fmt: skip
    return header


@contextmanager
def reading_tensors(path: Path) -> Iterator[Mapping[str, Tensor]]:
    """The tensors of a file by name, each read when it is asked for, and not kept.

    Raises:
        ArtifactError: it is a link.
        SafetensorError: it is no safetensors file, such as a pickle, which is never loaded.
    """
    check_plain_file(path)
    # what is mapped would stay in memory until the file is closed
    with safe_open(path, framework="pt", backend="pread") as opened:
        yield _Tensors(opened)


class ByName(Mapping[str, Tensor]):
    """Tensors of which shape and type are known, and each is had when it is asked for.

    Args:
        kinds: the same on the meta device.
    """

    def __init__(self, kinds: Mapping[str, Tensor]) -> None:
        self.kinds = kinds

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.kinds:
            raise KeyError(name)
        return self._had(name)

    def __contains__(self, name: object) -> bool:
        return name in self.kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    @abstractmethod
    def _had(self, name: str) -> Tensor: ...


def kinds_of(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors of the same names, shapes and types, for which none is read."""
    return tensors.kinds if isinstance(tensors, ByName) else tensors


def kind(shape: Iterable[int], dtype: torch.dtype) -> Tensor:
    """A tensor on the meta device."""
    return torch.empty([*shape], dtype=dtype, device="meta")


class _Tensors(ByName):
    def __init__(self, opened: Any) -> None:
        types = {told: dtype for dtype, told in DTYPES.items()}
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
        super().__init__({n: kind(one.get_shape(), types[one.get_dtype()]) for n, one in slices.items()})
        self._opened = opened

    def _had(self, name: str) -> Tensor:
        tensor: Tensor = self._opened.get_tensor(name)
        return tensor


class Under(ByName):
    """The tensors whose name starts with a prefix, without it."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        every = kinds_of(tensors).items()
        super().__init__({name.removeprefix(prefix): one for name, one in every if name.startswith(prefix)})
        self._tensors, self._prefix = tensors, prefix

    def _had(self, name: str) -> Tensor:
        return self._tensors[self._prefix + name]
