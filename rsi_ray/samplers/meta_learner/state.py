"""What a learner carries into the next run: one safetensors file, with JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Floats = npt.NDArray[np.float32]
KEY, FORMAT = "meta_learner", 1


class Remembered(BaseModel):
    """A candidate of another study.

    Attributes:
        params: its configuration.
        standing: standard normal quantile of its rank there.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    params: dict[str, Any]
    standing: float


class State(BaseModel):
    """What was learned, the controller's weights aside.

    Attributes:
        format: of the file.
        known: distribution of each parameter that the controller knows, as Optuna's JSON, in its order.
        baseline: the controller's moving baseline.
        scales: logarithms of the predictor's scales by their labels.
        space: distributions of the study that was searched last, in the order of asking.
        memory: its candidates and those of studies before.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: int = FORMAT
    known: dict[str, str]
    baseline: float | None
    scales: dict[str, float]
    space: dict[str, str]
    memory: list[Remembered]


def as_json(space: Mapping[str, BaseDistribution]) -> dict[str, str]:
    """Distributions as Optuna writes them."""
    return {name: distribution_to_json(one) for name, one in space.items()}


def from_json(space: Mapping[str, str]) -> dict[str, BaseDistribution]:
    """Distributions that Optuna has written."""
    return {name: json_to_distribution(one) for name, one in space.items()}


def write(path: Path, state: State, weights: Mapping[str, Floats]) -> None:
    """Write a state file, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    save_file(dict(weights), partial, metadata={KEY: state.model_dump_json()})
    partial.replace(path)


def read(path: Path) -> tuple[State, dict[str, Floats]]:
    """Read a state file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no state of a learner.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            told = (file.metadata() or {}).get(KEY)
            if told is None:
                raise ValueError(f"{path}: no {KEY} in its header, expected a file that a sampler has saved")
            state = State.model_validate(json.loads(told))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValidationError, json.JSONDecodeError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"{path}: {said}; expected a file that a sampler has saved") from error
    if state.format != FORMAT:
        raise ValueError(f"{path}: format {state.format}, expected {FORMAT}")
    return state, weights
