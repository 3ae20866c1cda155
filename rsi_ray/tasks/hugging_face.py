"""The task `hugging_face`: a dataset that the library `datasets` loads, as text, images or a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from rsi_ray.tasks.image_folder import SIDES
from rsi_ray.tasks.images import MODES, image_domain, read_image
from rsi_ray.tasks.labelled_text import labelled_text_domain
from rsi_ray.tasks.options import (
    HOLDOUT_SIZES,
    SEEDS,
    check_ranges,
    check_texts,
    check_tuple_of_texts,
    library,
)
from rsi_ray.tasks.table import MAX_LEVELS, Kind, table_domain
from rsi_ray.tasks.task import Domain, DomainTask, TaskHead
from rsi_ray.tasks.text import text_domain, without_repeats
from rsi_ray.tasks.text_files import LENGTHS


@dataclass(frozen=True, kw_only=True, slots=True)
class HuggingFaceOptions:
    """Which dataset, and what is learned from it: exactly one of `text`, `image` and `features` is given.

    Attributes:
        dataset: name on the hub, or a folder.
        subset: configuration of the dataset, where it has several.
        split: part that is loaded; training, hold-out and sealed part are all cut from it.
        text: column of texts. With a target each is classified by its first bytes, without one the next
            byte is predicted.
        image: column of pictures, which are classified.
        features: columns of numbers and categories, from which the target is told.
        target: column with the answers.
        target_kind: of a table, see `table_domain`.
        text_length: bytes per sample of text.
        height, width: pixels that every picture is stretched to.
        channels: 1 for grey, 3 for colours.
        max_levels: levels of a feature, at most, where it is a category.
        holdout_size: hold-out samples, and as many that are sealed.
        seed: of the split.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    dataset: str
    subset: str | None = None
    split: str = "train"
    text: str | None = None
    image: str | None = None
    features: tuple[str, ...] = ()
    target: str | None = None
    target_kind: Kind | None = None
    text_length: int = 64
    height: int = 32
    width: int = 32
    channels: int = 3
    max_levels: int = MAX_LEVELS
    holdout_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        optional = ("subset", "text", "image", "target")
        given = [name for name in optional if getattr(self, name) is not None]
        check_texts(self, "dataset", "split", *given)
        check_tuple_of_texts(self, "features")
        ranges = {"text_length": LENGTHS, "height": SIDES, "width": SIDES, "max_levels": (1, 4096)}
        check_ranges(self, {**ranges, "holdout_size": HOLDOUT_SIZES, "seed": SEEDS})
        if sum(map(bool, (self.text, self.image, self.features))) != 1:
            raise ValueError("exactly one of text, image and features must be given")
        if self.target is None and self.text is None:
            raise ValueError("target must be given for images and for features")
        if self.target_kind is not None and self.target_kind not in get_args(Kind):
            raise ValueError(
                f"target_kind must be one of {', '.join(get_args(Kind))}, not {self.target_kind!r}"
            )
        if self.channels not in MODES:
            raise ValueError(f"channels must be 1 or 3, not {self.channels!r}")


@lru_cache(maxsize=2)
def hugging_face_task(options: HuggingFaceOptions) -> DomainTask[TaskHead]:
    """Return the task with these options, prepared once per process.

    Raises:
        ValueError: `datasets` isn't installed, can't load this, or there is too little for the hold-out.
    """
    datasets = library("datasets", package="datasets", task="hugging_face")
    try:
        frame = datasets.load_dataset(options.dataset, options.subset, split=options.split).to_pandas()
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"dataset: {options.dataset}, split {options.split}: {first}") from None
    return DomainTask([frame_domain(frame, options)], holdout_size=options.holdout_size)


def frame_domain(frame: pd.DataFrame, options: HuggingFaceOptions) -> Domain[TaskHead]:
    """Make a domain of a loaded split, one row per sample.

    Raises:
        ValueError: a column is missing or holds something else, or there is too little for the hold-out.
    """
    names = [str(column) for column in frame.columns]
    for column in (options.text, options.image, *options.features, options.target):
        if column is not None and column not in names:
            raise ValueError(f"{options.dataset}: no column {column!r}, expected one of {', '.join(names)}")
    if options.text is not None:
        return _text_domain(frame, options)
    if options.image is not None:
        return _image_domain(frame, options)
    return table_domain(
        "table",
        frame[[*options.features, str(options.target)]],
        target=str(options.target),
        kind=options.target_kind,
        max_levels=options.max_levels,
        holdout_size=options.holdout_size,
        seed=options.seed,
        where=options.dataset,
    )


def _text_domain(frame: pd.DataFrame, options: HuggingFaceOptions) -> Domain[TaskHead]:
    texts = [text.encode() for text in _texts(frame, str(options.text), options)]
    length, holdout_size, seed = options.text_length, options.holdout_size, options.seed
    if options.target is None:
        return text_domain("text", without_repeats(texts), length=length, holdout_size=holdout_size)
    labels = _labels(frame, options)
    return labelled_text_domain("text", texts, labels, length=length, holdout_size=holdout_size, seed=seed)


def _image_domain(frame: pd.DataFrame, options: HuggingFaceOptions) -> Domain[TaskHead]:
    size, labels = (options.height, options.width), _labels(frame, options)
    pictures = [
        read_image(picture, where=where, size=size, channels=options.channels)
        for where, picture in _pictures(frame, options)
    ]
    return image_domain(
        "images", np.stack(pictures), labels, holdout_size=options.holdout_size, seed=options.seed
    )


def _pictures(frame: pd.DataFrame, options: HuggingFaceOptions) -> Iterator[tuple[str, bytes | Path]]:
    """Yield the place and the encoded picture of every row."""
    for row, cell in enumerate(frame[options.image]):
        where = f"{options.dataset}: column {options.image!r}, row {row}"
        if not isinstance(cell, dict) or not (cell.get("bytes") or cell.get("path")):
            raise ValueError(f"{where}: expected a picture, found {type(cell).__name__}")
        yield where, cell.get("bytes") or Path(cell["path"])


def _texts(frame: pd.DataFrame, column: str, options: HuggingFaceOptions) -> list[str]:
    for row, value in enumerate(frame[column]):
        if not isinstance(value, str):
            raise ValueError(
                f"{options.dataset}: column {column!r}, row {row}: expected text, found {value!r}"
            )
    return list(frame[column])


def _labels(frame: pd.DataFrame, options: HuggingFaceOptions) -> list[str]:
    labels = frame[options.target]
    if labels.isna().any():
        raise ValueError(
            f"{options.dataset}: target {options.target!r} is missing in {int(labels.isna().sum())} rows, "
            "expected it in every row"
        )
    return [str(label) for label in labels]
