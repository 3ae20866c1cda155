"""Torch is asked in a process that a real Ray gives a share; where there are no GPUs, of a processor."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from rsi_ray import examination, gpu_probe
from rsi_ray.cluster_facts import Node, Torch
from rsi_ray.gpu_check import fault_of_gpu, has_driver
from rsi_ray.gpu_probe import GpuProbe, torch_on
from tests.integration.conftest import CPUS, have_it_free

pytestmark = pytest.mark.ray


@pytest.fixture
def node(shared_ray: None, monkeypatch: pytest.MonkeyPatch) -> str:
    have_it_free()
    monkeypatch.setattr(gpu_probe, "GIVEN", {"num_cpus": 1})
    (found,) = ray.nodes()
    return str(found["NodeID"])


class Holder:
    def holds(self) -> bool:
        return True


def test_a_process_of_its_own_says_what_torch_makes_of_the_nodes_gpus(node: str):
    (found,) = torch_on([node]).values()
    assert (bool(found.fault), found.has_driver) == (bool(fault_of_gpu()), has_driver())
    assert torch_on([]) == {}


def test_a_node_where_nothing_comes_free_is_not_waited_for(node: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_probe, "FREE_SECONDS", 1.0)
    held: list[Any] = [ray.remote(Holder).options(num_cpus=1).remote() for _ in range(CPUS)]
    try:
        assert all(ray.get([one.holds.remote() for one in held]))
        began = time.monotonic()
        assert torch_on([node]) == {}
        assert time.monotonic() - began < 10
    finally:
        for one in held:
            ray.kill(one)


def test_a_process_that_dies_of_its_gpu_or_fails_or_is_silent_is_told_of(
    node: str, monkeypatch: pytest.MonkeyPatch
):
    class Dies(GpuProbe):
        def torch(self) -> Torch:
            os._exit(1)

    class Fails(GpuProbe):
        def torch(self) -> Torch:
            raise ImportError("libcudart is missing")

    class Silent(GpuProbe):
        def torch(self) -> Torch:
            time.sleep(60)
            return Torch()

    monkeypatch.setattr(gpu_probe, "GpuProbe", Dies)
    assert torch_on([node]) == {node: Torch(fault="the process that asked it has died")}
    monkeypatch.setattr(gpu_probe, "GpuProbe", Fails)
    assert torch_on([node]) == {node: Torch(fault="ImportError: libcudart is missing")}
    monkeypatch.setattr(gpu_probe, "GpuProbe", Silent)
    monkeypatch.setattr(gpu_probe, "TORCH_SECONDS", 0.5)
    assert torch_on([node]) == {node: Torch(fault="no answer within 0.5 s")}


def test_the_nodes_that_give_out_gpus_are_asked(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def answers(nodes: list[str]) -> dict[str, Torch]:
        asked.extend(nodes)
        return {"free": Torch(fault="too old")}

    monkeypatch.setattr(examination, "torch_on", answers)
    plain = Node(address="10.0.0.2", versions={}, free={})
    busy = Node(address="10.0.0.3", versions={}, free={}, gpus_of_ray=1.0)
    found = examination._with_torch({"plain": plain, "busy": busy, "free": busy})
    assert asked == ["busy", "free"]
    assert [one.torch for one in found] == [None, None, Torch(fault="too old")]


def test_the_examination_of_a_cluster_without_gpus_asks_nobody(shared_ray: None, tmp_path: Path):
    (found,) = examination.nodes(tmp_path, None)
    assert (found.failed, found.torch) == ("", None)
