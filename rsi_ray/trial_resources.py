"""Ray shell: what the trials of a sweep ask of a cluster, and how many of them run at a time."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from ray.tune import PlacementGroupFactory

from rsi_ray.errors import SweepError
from rsi_ray.placement import AUTO, Placement, Resources
from rsi_ray.plan import Plan, check_plan
from rsi_ray.training_job import TrainingJob

log = logging.getLogger(__name__)

SET_CONCURRENT = "where nodes are started when they are asked for, set `concurrent`"


class TrialResources:
    """What a configuration asks of Ray; trials that ask alike use the same workers one after the other.

    Tune pickles it, and reads it again in this process for every trial: it is the same object then, since a
    copy of its job would load the task anew. In another process, where nobody calls it, it is None.
    """

    def __init__(self, placement: Callable[[Mapping[str, Any]], Placement]) -> None:
        self._placement = placement
        self._name = secrets.token_hex(8)
        _here[self._name] = self

    def __call__(self, config: Mapping[str, Any]) -> PlacementGroupFactory:
        """One bundle for the trial's own process; Ray Train asks for those of several workers by itself."""
        return PlacementGroupFactory([self._placement(config).head])

    def __reduce__(self) -> tuple[Callable[[str], TrialResources | None], tuple[str]]:
        return _found_here, (self._name,)


_here: WeakValueDictionary[str, TrialResources] = WeakValueDictionary()


def _found_here(name: str) -> TrialResources | None:
    return _here.get(name)


def placement_of(plan: Plan, config: Mapping[str, Any]) -> Placement:
    """What a configuration asks for; what isn't trained on a task is for one worker."""
    if isinstance(plan.job, TrainingJob):
        return plan.job.placement(config)
    one = replace(plan.resources, workers=1)
    return one.placement(plan.job.price(config).memory_bytes)


def placed(plan: Plan, gpu_memory: Callable[[], int]) -> Plan:
    """The plan with the memory of the smallest GPU, where its trials ask for the shares that they need.

    Args:
        plan: is checked again.
        gpu_memory: asks the cluster, where the plan doesn't say.

    Raises:
        SweepError: nobody knows; or no candidate fits.
    """
    if not plan.resources.asks_for_gpu_memory:
        return plan
    known = known_gpu_memory(plan.resources, gpu_memory)
    job = plan.job.on_gpus_of(known) if isinstance(plan.job, TrainingJob) else plan.job
    plan = replace(plan, resources=replace(plan.resources, gpu_memory=known), job=job)
    check_plan(plan)
    return plan


def known_gpu_memory(resources: Resources, gpu_memory: Callable[[], int]) -> int:
    """Bytes of the smallest GPU: as they are given, or as the cluster says.

    Raises:
        SweepError: nobody knows.
    """
    known = resources.gpu_memory or gpu_memory()
    if not known:
        raise SweepError(
            "resources: auto, and no node's driver tells how much memory its GPUs have; "
            "set resources.gpu_memory to the bytes of the smallest"
        )
    return known


def fitting(plan: Plan, total: Mapping[str, float]) -> int | None:
    """Trials at a time; None for as many as Ray finds room for, where each asks for a share of its own.

    Args:
        plan: what each asks for.
        total: of the cluster, by Ray's names, with the nodes that are known to come.

    Raises:
        SweepError: not one trial fits.
    """
    asked = plan.resources
    workers = 1 if asked.workers == AUTO else asked.workers
    cpus, gpus = asked.cpus * workers, (1.0 if asked.gpus == AUTO else asked.gpus) * workers
    fits = total.get("CPU", 1) // cpus
    if gpus:
        fits = min(fits, total.get("GPU", 0) // gpus)
    if fits < 1:
        raise SweepError(
            f"resources: a trial asks for {cpus} CPUs and {gpus:g} GPUs, more than this cluster has; "
            f"{SET_CONCURRENT}"
        )
    # a trial of several workers waits for them under its lease: no more of them than may find room
    if asked.gpus == AUTO and asked.workers == 1:
        return None
    if "CPU" not in total:
        log.warning("no node has CPUs yet: one trial runs at a time; %s", SET_CONCURRENT)
    return int(fits)
