"""A domain of images that are all of one size, each of one class."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsi_ray.tasks.options import library
from rsi_ray.tasks.samples import SampleDomain, check_classes, distinct_rows, held_rows, split_order
from search_spaces.heads import ImageHead

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of a picture with so many channels."""

HISTOGRAM_CHUNK = 1024


def image_domain(
    name: str,
    pixels: NDArray[np.uint8],
    labels: Sequence[str],
    *,
    holdout_size: int,
    seed: int,
) -> SampleDomain[ImageHead]:
    """Drop repeated images, shuffle the rest and split off the hold-out and the sealed part.

    Every channel is standardised by the training images' mean and deviation.

    Args:
        name: of the head.
        pixels: shape (N, channels, height, width).
        labels: class of every image; ids follow their order by code point.
        holdout_size: hold-out samples, and as many that are sealed.
        seed: of the split.

    Raises:
        ValueError: too few distinct images for the hold-out, one class only, or one without training images.
    """
    order = split_order(name, distinct_rows(pixels), holdout_size=holdout_size, seed=seed)
    names, targets = np.unique(np.asarray(labels)[order], return_inverse=True)
    classes = [str(label) for label in names]
    held = held_rows(holdout_size)
    check_classes(name, targets, classes, held=held)
    _, channels, height, width = pixels.shape
    mean, deviation = _statistics(pixels[order[held:]])
    return SampleDomain(
        head=ImageHead(name=name, classes=len(classes), channels=channels, height=height, width=width),
        inputs=pixels[order],
        targets=targets.astype(np.int64),
        holdout_size=holdout_size,
        mean=mean,
        deviation=deviation,
    )


def read_image(
    source: Path | bytes, *, where: str, size: tuple[int, int], channels: int
) -> NDArray[np.uint8]:
    """Read a picture, (channels, height, width), stretched to `size`, which is (height, width).

    Raises:
        ValueError: Pillow can't read it, or isn't installed; the message begins with `where`.
    """
    pillow = library("PIL.Image", package="pillow", task="images")
    try:
        with pillow.open(BytesIO(source) if isinstance(source, bytes) else source) as picture:
            resized = picture.convert(MODES[channels]).resize(size[::-1], pillow.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise ValueError(f"{where}: {error}, expected a picture that Pillow reads") from None
    pixels: NDArray[np.uint8] = np.asarray(resized, dtype=np.uint8).reshape(*size, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _statistics(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of every channel, (channels, 1, 1); a deviation of 0 is told as 1."""
    counts = np.stack([_histogram(pixels[:, channel]) for channel in range(pixels.shape[1])])
    values = np.arange(256)
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = counts @ values**2 / total - mean**2
    deviation = np.where(variance > 0, np.sqrt(np.maximum(variance, 0)), 1)
    shape = (-1, 1, 1)
    return mean.astype(np.float32).reshape(shape), deviation.astype(np.float32).reshape(shape)


def _histogram(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count each of 256 values; whole numbers, so that every machine finds the same statistics."""
    histogram = np.zeros(256, dtype=np.int64)
    # Counting takes 8 bytes a value: too much for all of them at a time.
    for start in range(0, len(values), HISTOGRAM_CHUNK):
        histogram += np.bincount(values[start : start + HISTOGRAM_CHUNK].ravel(), minlength=256)
    return histogram
