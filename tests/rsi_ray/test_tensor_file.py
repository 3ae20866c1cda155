"""Safetensors files by our own writer, held against the library's; and what they cost in memory."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from rsi_ray.tensor_file import DTYPES, ByName, Under, reading_tensors, write_tensors
from rsi_ray.weights import put_weights
from safety import ArtifactError

TENSORS = {
    **{str(dtype): torch.ones(3, 2, dtype=dtype) for dtype in DTYPES},
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 4),
    "turned": torch.arange(6.0).view(2, 3).T,
    "trained": torch.ones(2, requires_grad=True),
}


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        one.dtype == expected[name].dtype and torch.equal(one, expected[name]) for name, one in found.items()
    )


def test_what_is_written_is_read_by_the_library_and_no_longer_than_what_it_writes(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with ours.open("wb") as file:
        write_tensors(TENSORS, file, metadata={"spec": "{}"})
    assert same(load_file(ours), TENSORS)
    with safe_open(ours, framework="pt") as opened:
        assert opened.metadata() == {"spec": "{}"}
    save_file({name: one.contiguous() for name, one in TENSORS.items()}, theirs, metadata={"spec": "{}"})
    assert ours.stat().st_size == theirs.stat().st_size


def test_every_type_of_the_library_is_written() -> None:
    known = {one for one in safetensors.torch._TYPES.values() if one is not None}
    assert {DTYPES[one] for one in known} == {
        name for name, one in safetensors.torch._TYPES.items() if one is not None
    }


def test_a_name_that_is_not_there_is_no_name_and_nothing_is_read_to_know_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_file({"a.x": torch.ones(2)}, path)
    with reading_tensors(path) as tensors:
        assert (tensors.get("y"), "y" in tensors, "a.x" in tensors) == (None, False, True)
        with pytest.raises(KeyError):
            Under(tensors, "a.")["y"]


class Counted(ByName):
    """Tells which tensors were read, in order."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__({name: one.to("meta") for name, one in tensors.items()})
        self.tensors, self.read = tensors, list[str]()

    def _had(self, name: str) -> torch.Tensor:
        self.read.append(name)
        return self.tensors[name]


def test_a_model_takes_weights_by_reading_each_once_and_none_of_another_architecture() -> None:
    model, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 4)
    weights = Counted({name: torch.ones_like(one) for name, one in model.state_dict().items()})
    put_weights(model, Under(Counted({f"a.{n}": one for n, one in weights.tensors.items()}), "a."))
    assert bool((model.weight == 1).all())
    with pytest.raises(ValueError, match="expected"):
        put_weights(other, weights)
    assert weights.read == []
    put_weights(model, weights)
    assert sorted(weights.read) == ["bias", "weight"]


def test_what_the_library_writes_is_read_tensor_by_tensor(tmp_path: Path) -> None:
    path = tmp_path / "file"
    save_file({name: one.contiguous() for name, one in TENSORS.items()}, path)
    with reading_tensors(path) as tensors:
        assert same({**tensors}, TENSORS)
        assert len(tensors) == len(TENSORS)


def test_each_tensor_is_made_whole_once_in_the_same_order_whether_it_is_written_or_not() -> None:
    orders: list[list[int]] = []
    for file in (io.BytesIO(), None):
        seen: list[int] = []

        def whole(tensor: torch.Tensor, seen: list[int] = seen) -> torch.Tensor:
            seen.append(id(tensor))
            return tensor

        write_tensors(dict(sorted(TENSORS.items(), reverse=file is None)), file, whole=whole)
        orders.append(seen)
    assert orders[0] == orders[1]
    assert len({*orders[0]}) == len(TENSORS)


def test_a_type_that_the_format_has_no_name_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^x: torch.complex128 can't be written"):
        write_tensors({"x": torch.ones(1, dtype=torch.complex128)}, io.BytesIO())


def test_a_link_a_pickle_and_a_torn_file_are_no_such_file(tmp_path: Path) -> None:
    path, link, written = tmp_path / "file", tmp_path / "link", io.BytesIO()
    write_tensors(TENSORS, written)
    path.write_bytes(written.getvalue()[:-1])
    link.symlink_to(path)
    torch.save({"x": torch.ones(2)}, tmp_path / "pickle")
    for bad, error in (
        (link, ArtifactError),
        (path, SafetensorError),
        (tmp_path / "pickle", SafetensorError),
    ):
        with pytest.raises(error), reading_tensors(bad):
            pass


def test_a_part_of_the_names_is_found_without_the_prefix() -> None:
    found = Under({"a.x": TENSORS["scalar"], "a.y": TENSORS["empty"], "b.x": TENSORS["turned"]}, "a.")
    assert [*found] == ["x", "y"]
    assert (found["x"] is TENSORS["scalar"], len(found), "b.x" in found) == (True, 2, False)


def test_to_keep_and_to_restore_a_state_takes_no_more_than_was_claimed() -> None:
    subprocess.run([sys.executable, "-m", "tests.rsi_ray.claim_kept", "state"], check=True, timeout=240)
