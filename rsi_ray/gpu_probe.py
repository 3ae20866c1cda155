"""Ray shell: what torch makes of the GPUs of every node, asked in a process that Ray gives one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rsi_ray.cluster_facts import Torch

# for a part of a GPU to be free, and a process to start; for torch to be loaded, and to compute
FREE_SECONDS, TORCH_SECONDS = 30.0, 90.0
# so little that it fits beside trials which share a GPU
GIVEN = {"num_cpus": 0, "num_gpus": 0.01}


class GpuProbe:
    """Tries the GPU that Ray has given it."""

    def is_there(self) -> bool:
        """It is, which takes a GPU."""
        return True

    def torch(self) -> Torch:
        """What torch makes of it."""
        check = import_module("rsi_ray.gpu_check")  # with torch, which nobody else here needs
        return Torch(fault=check.fault_of_gpu(), has_driver=check.has_driver())


def torch_on(nodes: Sequence[str]) -> dict[str, Torch]:
    """What torch makes of a GPU of each node; nodes where none came free are left out.

    Args:
        nodes: Ray's ids of those that have some.
    """
    probes = {node: _probe(node) for node in nodes}
    there = {probe.is_there.remote(): node for node, probe in probes.items()}
    try:
        begun = _ready(list(there), FREE_SECONDS)
        asked = {there[one]: probes[there[one]].torch.remote() for one in begun}
        _ready(list(asked.values()), TORCH_SECONDS)
        return {node: _answer(answer) for node, answer in asked.items()}
    finally:
        for probe in probes.values():
            with suppress(RayError):
                ray.kill(probe)


def _ready(asked: list[Any], seconds: float) -> list[Any]:
    """Those that are answered, as soon as all are, or after so long."""
    return ray.wait(asked, num_returns=len(asked), timeout=seconds)[0] if asked else []


def _probe(node: str) -> Any:
    where = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(GpuProbe).options(**GIVEN, scheduling_strategy=where).remote()


def _answer(asked: Any) -> Torch:
    try:
        found: Torch = ray.get(asked, timeout=1)
    except GetTimeoutError:
        return Torch(fault=f"no answer within {TORCH_SECONDS:g} s")
    except RayActorError:  # Ray tells at length what may have ended it; here it may have been CUDA
        return Torch(fault="the process that asked it has died")
    except RayError as error:
        return Torch(fault=str(error).strip().splitlines()[-1])
    return found
