"""A domain of table rows: features from numbers and categories, one target column."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rsi_ray.tasks.features import category_features, feature_column, numeric_features
from rsi_ray.tasks.samples import SampleDomain, check_classes, distinct_rows, held_rows, split_order
from rsi_ray.tasks.task import Array
from search_spaces.heads import TableHead

Kind = Literal["classification", "regression"]

MAX_LEVELS = 32
"""Levels of a column of categories, at most: each is a feature."""


def table_domain(
    name: str,
    frame: pd.DataFrame,
    *,
    target: str,
    kind: Kind | None = None,
    ignore: tuple[str, ...] = (),
    max_levels: int = MAX_LEVELS,
    holdout_size: int,
    seed: int,
    where: str = "table",
) -> SampleDomain[TableHead]:
    """Drop rows whose features repeat, shuffle the rest, split off what is held, and make numbers of all.

    Everything that is learned from the data, such as means and levels, is learned from the training part.

    Args:
        name: of the head.
        frame: one row per sample.
        target: column with the answers.
        kind: what is learned; where it is left out, regression if the target's numbers are floats, else
            classification.
        ignore: columns that are left out.
        max_levels: levels of a column of categories, at most.
        holdout_size: hold-out samples, and as many that are sealed.
        seed: of the split.
        where: begins every message.

    Raises:
        ValueError: a column is missing, or of no use; or too little is left for the hold-out.
    """
    columns = _features(where, frame, target, ignore)
    prepared = pd.DataFrame({column: feature_column(where, column, frame[column]) for column in columns})
    distinct = np.flatnonzero(~prepared.duplicated().to_numpy())
    order = split_order(where, distinct, holdout_size=holdout_size, seed=seed)
    held = held_rows(holdout_size)
    inputs = _encoded(where, prepared.iloc[order], max_levels, held)
    kept = _without_leaks(inputs, held)
    answers = frame[target].iloc[order[kept]]
    targets, outputs = _targets(f"{where}: target {target!r}", answers, kind, held)
    return SampleDomain(
        head=TableHead(name=name, outputs=outputs, features=inputs.shape[1]),
        inputs=inputs[kept],
        targets=targets,
        holdout_size=holdout_size,
        mean=np.zeros((), dtype=np.float32),
        deviation=np.ones((), dtype=np.float32),
    )


def _features(where: str, frame: pd.DataFrame, target: str, ignore: tuple[str, ...]) -> list[str]:
    names = [str(column) for column in frame.columns]
    for column in (target, *ignore):
        if column not in frame.columns:
            raise ValueError(f"{where}: no column {column!r}, expected one of {', '.join(names)}")
    features = [column for column in frame.columns if column not in (target, *ignore)]
    if not features:
        raise ValueError(
            f"{where}: no column beside the target {target!r}, expected one or more to learn from"
        )
    return features


def _encoded(where: str, prepared: pd.DataFrame, max_levels: int, held: int) -> NDArray[np.float32]:
    blocks = []
    for name, column in prepared.items():
        place = f"{where}: column {name!r}"
        if pd.api.types.is_float_dtype(column.dtype):
            blocks.append(numeric_features(place, column.to_numpy(), held))
        else:
            blocks.append(category_features(place, column, max_levels, held))
    return np.concatenate(blocks, axis=1)


def _without_leaks(inputs: NDArray[np.float32], held: int) -> NDArray[np.int64]:
    """Return the rows that stay: training rows that became equal to a held one are dropped."""
    distinct = distinct_rows(inputs)
    return np.concatenate([np.arange(held), distinct[distinct >= held]])


def _targets(place: str, answers: pd.Series[Any], kind: Kind | None, held: int) -> tuple[Array, int]:
    """Return targets, and how many outputs answer them."""
    missing = int(answers.isna().sum())
    if missing:
        raise ValueError(f"{place} is missing in {missing} rows, expected it in every row")
    if kind is None:
        kind = "regression" if pd.api.types.is_float_dtype(answers.dtype) else "classification"
    if kind == "regression":
        return _standardised(place, answers, held), 1
    return _class_ids(place, answers, held)


def _class_ids(place: str, answers: pd.Series[Any], held: int) -> tuple[NDArray[np.int64], int]:
    numeric = pd.api.types.is_numeric_dtype(answers.dtype)
    labels = answers.to_numpy() if numeric else answers.astype(str).to_numpy(dtype=np.str_)
    values, ids = np.unique(labels, return_inverse=True)
    classes = [str(value) for value in values]
    check_classes(place, ids, classes, held=held)
    return ids.astype(np.int64), len(classes)


def _standardised(place: str, answers: pd.Series[Any], held: int) -> NDArray[np.float32]:
    """Standardise numbers by the mean and deviation of the training part: (N, 1)."""
    numbers = pd.to_numeric(answers, errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise ValueError(
            f"{place} holds {answers.iloc[wrong[0]]!r}, expected finite numbers for a regression"
        )
    training, half = numbers[held:], held // 2
    parts = {"hold-out": numbers[:half], "sealed": numbers[half:held], "training": training}
    for part, values in parts.items():
        if values.min() == values.max():
            raise ValueError(f"{place} is {values[0]} in every {part} row, expected numbers that vary")
    targets: NDArray[np.float32] = ((numbers - training.mean()) / training.std()).astype(np.float32)
    return targets[:, None]
