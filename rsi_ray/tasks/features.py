"""Columns of a table as features: numbers standardised, categories one-hot, all by the training part.

The first `held` rows are the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types


def feature_column(where: str, name: str, column: pd.Series[Any]) -> pd.Series[Any]:
    """Return the column as float64 where it holds numbers, else as text; what is missing stays missing.

    Raises:
        ValueError: it holds neither numbers nor text, or an infinity.
    """
    if types.is_bool_dtype(column.dtype) or _is_real(column):
        numbers = column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isinf(numbers).any():
            raise ValueError(f"{where}: column {name!r} holds an infinity, expected finite numbers")
        return pd.Series(numbers, index=column.index)
    if _is_text(column):
        return column.astype(object).map(str, na_action="ignore")
    raise ValueError(
        f"{where}: column {name!r} holds {column.dtype}, expected numbers or text; `ignore` leaves it out"
    )


def numeric_features(place: str, values: NDArray[np.float64], held: int) -> NDArray[np.float32]:
    """Impute the training part's median, take off its mean and divide by its deviation: (N, 1).

    Raises:
        ValueError: the training part holds no number, or a number is too far from all others for float32.
    """
    training = values[held:]
    if np.isnan(training).all():
        raise ValueError(f"{place} holds no number in any training row; `ignore` leaves it out")
    filled = np.where(np.isnan(values), np.nanmedian(training), values)
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = filled[held:].std()
        scaled = (filled - filled[held:].mean()) / (deviation or 1.0)
        features: NDArray[np.float32] = scaled.astype(np.float32)
    if not (np.isfinite(deviation) and np.isfinite(features).all()):
        raise ValueError(f"{place} holds numbers too large to standardise, expected numbers that fit float32")
    return features[:, None]


def category_features(place: str, column: pd.Series[Any], max_levels: int, held: int) -> NDArray[np.float32]:
    """One-hot the levels of the training part, by code point: (N, levels); others and missing are zeros.

    Raises:
        ValueError: there are too many levels, or none.
    """
    levels = sorted(column.iloc[held:].dropna().unique())
    if not levels:
        raise ValueError(f"{place} holds no text in any training row; `ignore` leaves it out")
    if len(levels) > max_levels:
        raise ValueError(
            f"{place} has {len(levels)} levels in the training rows, expected at most {max_levels}; "
            "`ignore` leaves it out"
        )
    codes = pd.Index(levels).get_indexer(pd.Index(column))
    features: NDArray[np.float32] = (codes[:, None] == np.arange(len(levels))).astype(np.float32)
    return features


def _is_real(column: pd.Series[Any]) -> bool:
    return types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column.dtype)


def _is_text(column: pd.Series[Any]) -> bool:
    if isinstance(column.dtype, pd.CategoricalDtype | pd.StringDtype):
        return True
    return types.is_object_dtype(column.dtype) and all(
        isinstance(value, str | int | float) for value in column.dropna()
    )
