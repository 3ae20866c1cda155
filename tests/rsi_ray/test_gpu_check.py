"""Whether torch can use a GPU, with torch's own answers set by hand: no GPU is needed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from rsi_ray import gpu_check
from rsi_ray.errors import TrainingError
from rsi_ray.gpu_check import VISIBLE, fault_of_gpu, hidden_by, require_gpu

TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040)."


@pytest.fixture(autouse=True)
def useless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch for CUDA 12.8 on a driver that is older."""

    def init() -> None:
        raise RuntimeError(f"{TOO_OLD}\nmore of it")

    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch, "__version__", "2.9.0+cu128")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    for name in VISIBLE:
        monkeypatch.delenv(name, raising=False)
    gpu_check._warn.cache_clear()


@pytest.fixture
def drivers(tmp_path: Path) -> list[Path]:
    (tmp_path / "nvidiactl").touch()
    return [tmp_path / "kfd", tmp_path / "nvidiactl"]


@pytest.mark.parametrize("gpus", [1.0, 0.0625, "auto"])
def test_where_torch_can_not_use_the_gpu_that_is_there_nothing_is_trained(gpus, drivers):
    with pytest.raises(TrainingError) as raised:
        require_gpu(gpus, drivers)
    said = str(raised.value)
    assert said.startswith(f"GPU: {gpus} asked for, and torch can't use one: torch 2.9.0+cu128, for")
    assert f", for CUDA 12.8: {TOO_OLD}; " in said
    assert said.endswith(gpu_check.TO_DO)
    assert "\n" not in said


def test_where_no_gpu_is_asked_for_or_torch_can_use_it_nothing_happens(drivers, monkeypatch, caplog):
    require_gpu(0.0, drivers)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_gpu(1.0, drivers)
    assert caplog.text == ""


def test_where_there_is_no_driver_it_is_told_once_and_goes_on(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            require_gpu(1.0, [tmp_path / "nvidiactl"])
    (told,) = caplog.messages
    assert told.startswith("GPUs are asked for, and this node has no GPU's driver: training goes on on")


@pytest.mark.parametrize("name", VISIBLE)
@pytest.mark.parametrize("shown", ["", "-1", "NoDevFiles"])
def test_a_process_that_is_shown_no_gpu_was_given_none_and_torch_is_not_at_fault(
    name, shown, drivers, monkeypatch, caplog
):
    monkeypatch.setenv(name, shown)
    require_gpu(1.0, drivers)
    assert f"{name} shows this process none" in caplog.text


def test_a_gpu_that_is_shown_and_is_not_there_is_named(drivers, monkeypatch):
    def init() -> None:
        raise RuntimeError("No CUDA GPUs are available")

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert hidden_by() == ""
    with pytest.raises(TrainingError, match=r"No CUDA GPUs are available \(CUDA_VISIBLE_DEVICES=5\); "):
        require_gpu(1.0, drivers)


def test_a_build_for_cpus_is_said_to_be_one(monkeypatch):
    def init() -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch, "__version__", "2.9.0+cpu")
    assert fault_of_gpu() == "torch 2.9.0+cpu, a build for CPUs: Torch not compiled with CUDA enabled"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "for ROCm 6.4: " in fault_of_gpu()


def test_a_gpu_that_computes_has_no_fault_and_one_that_fails_to_has_one(monkeypatch):
    def fails(device: torch.device) -> None:
        raise RuntimeError(f"no kernel image is available for execution on {device}")

    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(gpu_check, "begin_cuda", lambda device: None)
    assert fault_of_gpu() == ""
    monkeypatch.setattr(gpu_check, "begin_cuda", fails)
    assert fault_of_gpu().endswith(": no kernel image is available for execution on cuda")
