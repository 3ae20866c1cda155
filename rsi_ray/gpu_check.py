"""Whether torch can use the GPUs that Ray gives out: one that can't would train on the CPU, unasked."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from rsi_ray.cuda_memory import begin_cuda
from rsi_ray.errors import GpuError
from rsi_ray.placement import Gpus
from rsi_ray.printable import one_line

# device files, which are there with a driver of NVIDIA's, or of AMD's
DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
# by these Ray hands out GPUs, and hides them from a process that has none
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
TO_DO = (
    "install on this node a build of torch that fits its driver, or a newer driver; or ask for no GPU"
    " (resources: {gpu: 0})"
)

log = logging.getLogger(__name__)


def require_gpu(gpus: Gpus, drivers: Sequence[Path] = DRIVERS) -> None:
    """Refuse to train on the CPU where GPUs are asked for, and torch can't use the ones that are there.

    Where there is none, or none is shown to this process, training goes on on the CPU, and a warning says so:
    Ray was told of GPUs by hand, or has given this process none.

    Args:
        gpus: that this process was given; 0 for none.
        drivers: files that tell of a driver.

    Raises:
        GpuError: there is a driver, and torch can't use a GPU.
    """
    if not gpus or torch.cuda.is_available():
        return
    if not has_driver(drivers):
        _warn("this node has no GPU's driver")
    elif hidden := hidden_by():
        _warn(f"{hidden} shows this process none")
    else:
        raise GpuError(f"GPU: {gpus} asked for, and torch can't use one: {fault_of_gpu()}; {TO_DO}")


@cache  # once in a process
def _warn(why: str) -> None:
    log.warning("GPUs are asked for, and %s: training goes on on the CPU, and is charged as GPU time", why)


def has_driver(drivers: Sequence[Path] = DRIVERS) -> bool:
    """Whether this node has the driver of a GPU."""
    return any(driver.exists() for driver in drivers)


def hidden_by() -> str:
    """The variable that hides all GPUs from this process; "" where none does.

    A process that Ray gives a GPU finds its number there; one without finds nothing, if Ray was started to
    hide them (RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO).
    """
    found = [name for name in VISIBLE if os.environ.get(name, "0").strip() in ("", "-1", "NoDevFiles")]
    return found[0] if found else ""


def fault_of_gpu() -> str:
    """Why torch can't compute on the GPU that this process sees, in one line; "" where it can."""
    try:
        # is_available() says no more than no, and warns of it once in a process
        torch.cuda.init()  # type: ignore[no-untyped-call]
        begin_cuda(torch.device("cuda"))
    except Exception as error:  # a build for CPUs fails by an AssertionError, CUDA by errors of many kinds
        return f"{_build()}: {one_line(error)}{_shown()}"
    return ""


def _build() -> str:
    if torch.version.cuda:
        made_for = f"for CUDA {torch.version.cuda}"
    elif torch.version.hip:
        made_for = f"for ROCm {torch.version.hip}"
    else:
        made_for = "a build for CPUs"
    return f"torch {torch.__version__}, {made_for}"


def _shown() -> str:
    """What decides which GPUs are there; of one that isn't, torch says that there is none."""
    return "".join(f" ({name}={os.environ[name]})" for name in VISIBLE if name in os.environ)
