"""Whether and how a candidate's training step is compiled by `torch.compile`."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import subprocess
import sysconfig
from functools import cache
from typing import Literal

import torch
from torch import nn

from rsi_ray.errors import TrainingError

log = logging.getLogger(__name__)

Compile = Literal["auto", "always", "never"]

# A compilation takes about a minute and saves about a quarter of a step, so that it pays in trainings of four
# minutes and more: at 100 TFLOP/s, or at 5 ms a step where launches take the time. `bench.gpu` measures both.
PAYING_FLOPS = 24 * 10**15
PAYING_STEPS = 48_000

# that includes what torch and Triton build for each kernel of theirs
PROBE = "#include <stdbool.h>\n#include <Python.h>\n"
PROBE_SECONDS = 30
# by the kind of device: the variable that names a compiler, those that are looked for, the language
COMPILERS = {"cuda": ("CC", ("gcc", "clang"), "c"), "cpu": ("CXX", ("g++",), "c++")}


def pays(choice: Compile, device: torch.device, *, flops: int, steps: int) -> bool:
    """Whether the steps of a training are compiled.

    Args:
        choice: `auto` compiles on a GPU alone, where the training is long enough.
        device: that trains.
        flops: of the whole training, as they are planned.
        steps: of the whole training.

    Raises:
        TrainingError: `always`, and this host lacks what it takes.
    """
    long = device.type == "cuda" and (flops >= PAYING_FLOPS or steps >= PAYING_STEPS)
    if choice == "never" or (choice == "auto" and not long):
        return False
    lacks = lacking(device.type)
    if lacks and choice == "always":
        raise TrainingError(f"training.compile: always, and {lacks}")
    if lacks:
        _warn_once(lacks)
    return not lacks


def lacking(device: str) -> str:
    """What this host has to be given before torch can compile there; "" for nothing.

    Args:
        device: kind of it. Kernels of a GPU are started by functions in C, those of a CPU are C++.
    """
    variable, names, language = COMPILERS.get(device, COMPILERS["cpu"])
    packages = f"install {names[0]}, libc6-dev and python3-dev (Debian's names) on every node that trains"
    compiler = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), "")
    if not compiler:
        return f"there is no compiler ({variable}, {' or '.join(names)}): {packages}"
    headers = sysconfig.get_path("include", "posix_prefix")
    command = [compiler, "-fsyntax-only", "-x", language, f"-I{headers}", "-"]
    try:
        subprocess.run(command, input=PROBE.encode(), capture_output=True, timeout=PROBE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return f"{compiler} finds no Python.h in {headers}, or not what that includes: {packages}"
    return ""


@cache
def _warn_once(lacks: str) -> None:
    log.warning("steps are not compiled: %s", lacks)


def compiled(model: nn.Module) -> nn.Module:
    """The model with its forward compiled at its first call; weights, and their names, stay the model's own.

    Raises:
        ImportError: this torch can't compile.
    """
    # else a process compiles for eight candidates of a class, and for no more
    torch.compiler.reset()
    inductor = importlib.import_module("torch._inductor.config")
    # a pool of compilers would count as the candidate's memory
    inductor.compile_threads = 1  # type: ignore[attr-defined]
    wrapped: nn.Module = torch.compile(model)  # type: ignore[assignment]
    return wrapped
