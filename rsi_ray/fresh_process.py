"""Ray shell: a function of ours in a process that did nothing before it and does nothing after."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from rsi_ray.cuda_memory import CudaMemory
from rsi_ray.errors import EvaluationError, SweepError
from safety import Authority, KernelTimer, LeaseKeeper, SafetyError
from safety.kernel import bury_children, parent_runs
from safety.resources import resident_bytes

# makes Ray start a process for it: no worker has run in this environment before
FRESH = "RSI_RAY_EVALUATION"

FoundT = TypeVar("FoundT")


def in_fresh_process(
    function: Callable[..., FoundT], *arguments: Any, what: str, cpus: int, gpus: float, **keywords: Any
) -> FoundT:
    """Call `function(keeper_of, *arguments, **keywords)` in a process of its own on the cluster.

    Args:
        function: is given what makes a lease keeper of an authority; it can be pickled.
        arguments: likewise.
        what: names it in messages.
        cpus, gpus: of the process; without cores it runs beside others.
        keywords: likewise.

    Raises:
        SafetyError, EvaluationError, SweepError: the function's own.
        EvaluationError: it failed otherwise, or its process died.
    """
    run: Any = ray.remote(max_calls=1, max_retries=0)(_alone).options(
        num_cpus=cpus, num_gpus=gpus, runtime_env={"env_vars": {FRESH: os.urandom(8).hex()}}
    )
    running = run.remote(function, arguments, keywords, cpus)
    try:
        found: FoundT = ray.get(running)
    except RayTaskError as error:
        if isinstance(error.cause, SafetyError | EvaluationError | SweepError):
            raise error.cause from None
        line = "".join(str(error.cause).strip().splitlines()[-1:])
        raise EvaluationError(f"{what} failed: {type(error.cause).__name__}: {line}") from error
    except RayError as error:
        line = str(error).strip().splitlines()[0]
        raise EvaluationError(f"{what}: its process died: {line}") from None
    except BaseException:  # whoever waits is interrupted: nobody would hear the answer
        ray.cancel(running, force=True)
        raise
    return found


def _alone(
    function: Callable[..., FoundT], arguments: tuple[Any, ...], keywords: dict[str, Any], cpus: int
) -> FoundT:
    bury_children()
    torch.set_num_threads(max(1, cpus))
    return function(keeper_here, *arguments, **keywords)


def keeper_here(authority: Authority) -> LeaseKeeper:
    """A lease keeper of this process."""
    return LeaseKeeper(
        authority, KernelTimer(), supervised=parent_runs(), memory=resident_bytes, device=CudaMemory()
    )
