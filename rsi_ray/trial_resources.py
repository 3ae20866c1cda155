"""Ray shell: what the trials of a sweep ask of a cluster, and how many of them run at a time."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from ray.tune import PlacementGroupFactory

from rsi_ray.errors import SweepError
from rsi_ray.job import TrainingJob
from rsi_ray.placement import AUTO, Resources
from rsi_ray.plan import Plan, check_plan
from safety import Claim


class TrialResources:
    """What a configuration asks of Ray; trials that ask alike use the same workers one after the other.

    Tune pickles it, and reads it again in this process for every trial: it is the same object then, since a
    copy of its job would load the task anew. In another process, where nobody calls it, it is None.
    """

    def __init__(self, price: Callable[[Mapping[str, Any]], Claim], resources: Resources) -> None:
        self._price, self._resources = price, resources
        self._name = secrets.token_hex(8)
        _here[self._name] = self

    def __call__(self, config: Mapping[str, Any]) -> PlacementGroupFactory:
        """One bundle for the trial's one process."""
        placement = self._resources.placement(self._price(config).memory_bytes)
        return PlacementGroupFactory([placement.bundle])

    def __reduce__(self) -> tuple[Callable[[str], TrialResources | None], tuple[str]]:
        return _found_here, (self._name,)


_here: WeakValueDictionary[str, TrialResources] = WeakValueDictionary()


def _found_here(name: str) -> TrialResources | None:
    return _here.get(name)


def placed(plan: Plan, gpu_memory: Callable[[], int]) -> Plan:
    """The plan with the memory of the smallest GPU, where its trials ask for the shares that they need.

    Args:
        plan: is checked again.
        gpu_memory: asks the cluster, where the plan doesn't say.

    Raises:
        SweepError: nobody knows; or no candidate fits.
    """
    if plan.gpus != AUTO:
        return plan
    known = plan.gpu_memory or gpu_memory()
    if not known:
        raise SweepError(
            "resources.gpu: auto, and no node's driver tells how much memory its GPUs have; "
            "set resources.gpu_memory to the bytes of the smallest"
        )
    job = plan.job.on_gpus_of(known) if isinstance(plan.job, TrainingJob) else plan.job
    plan = replace(plan, gpu_memory=known, job=job)
    check_plan(plan)
    return plan


def fitting(plan: Plan, total: Mapping[str, float]) -> int | None:
    """Trials at a time; None for as many as Ray finds room for, where each asks for a share of its own.

    Args:
        plan: what each asks for.
        total: of the cluster, by Ray's names.

    Raises:
        SweepError: not one trial fits.
    """
    gpus = 1.0 if plan.gpus == AUTO else plan.gpus
    fits = total.get("CPU", 1) // plan.cpus
    if gpus:
        fits = min(fits, total.get("GPU", 0) // gpus)
    if fits < 1:
        asked = f"{plan.cpus} CPUs and {gpus:g} GPUs"
        raise SweepError(f"resources: a trial asks for {asked}, more than this cluster has")
    return None if plan.gpus == AUTO else int(fits)
