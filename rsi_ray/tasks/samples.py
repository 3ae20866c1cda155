"""A domain of images or table rows with their answers, split into training, hold-out and sealed part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from rsi_ray.tasks.task import Array, Batch, HeadT


def held_rows(holdout_size: int) -> int:
    """Rows before the first one that trains: those of the hold-out, then as many that are sealed."""
    return 2 * holdout_size


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SampleDomain(Generic[HeadT]):
    """A domain of samples that fit in memory: the hold-out first, then the sealed part, then the training's.

    Attributes:
        head: answers it.
        inputs: as they are stored, uint8 or float32, shape (N, *sample shape).
        targets: class ids, int64, (N,), or standardised numbers, float32, (N, outputs).
        holdout_size: samples of the hold-out, and of the sealed part; all others are for training.
        mean, deviation: float32, taken off the inputs and divided by before a model sees them; one number,
            or an array that broadcasts to a sample.
    """

    head: HeadT
    inputs: NDArray[np.uint8] | NDArray[np.float32]
    targets: Array
    holdout_size: int
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @property
    def digest(self) -> str:
        """SHA-256 of inputs, targets and split, in hex."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.targets, self.mean, self.deviation):
            digest.update(f"{array.dtype.name}{array.shape}".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        digest.update(str((self.holdout_size, held_rows(self.holdout_size))).encode())
        return digest.hexdigest()

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw `size` training samples: inputs (size, *sample shape), targets (size,) or (size, outputs)."""
        return self._rows(self.pick(rng, size))

    def pick(self, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Choose the rows of `size` training samples."""
        return rng.integers(held_rows(self.holdout_size), len(self.inputs), size=size)

    def holdout(self) -> Batch:
        """Return the hold-out, in the shapes of `draw`."""
        return self._rows(np.arange(self.holdout_size))

    def sealed(self) -> Batch:
        """Return the sealed part, in the shapes of `draw`."""
        return self._rows(np.arange(self.holdout_size, held_rows(self.holdout_size)))

    def _rows(self, rows: NDArray[np.int64]) -> Batch:
        inputs = (self.inputs[rows].astype(np.float32) - self.mean) / self.deviation
        return Batch(inputs=inputs, targets=self.targets[rows])


def split_order(name: str, distinct: NDArray[np.int64], *, holdout_size: int, seed: int) -> NDArray[np.int64]:
    """Shuffle the rows of distinct samples; the answer begins with those of the hold-out and the sealed part.

    Raises:
        ValueError: fewer than three times the hold-out are left; the message begins with `name`.
    """
    least = held_rows(holdout_size) + holdout_size
    if len(distinct) < least:
        raise ValueError(
            f"{name}: {len(distinct)} distinct samples, expected {least} or more "
            f"for a hold-out of {holdout_size}, as many sealed and as many to train on"
        )
    return np.random.default_rng(seed).permutation(distinct)


def distinct_rows(samples: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the place of the first of every group of equal samples (N, ...), in order."""
    flat = np.ascontiguousarray(samples).reshape(len(samples), -1)
    rows = flat.view(f"V{flat.itemsize * flat.shape[1]}").ravel()
    return np.sort(np.unique(rows, return_index=True)[1])


def check_classes(name: str, targets: NDArray[np.int64], classes: list[str], *, held: int) -> None:
    """Check class ids of which the first `held` are not for training.

    Raises:
        ValueError: there is one class only, or one has no training sample.
    """
    if len(classes) < 2:
        raise ValueError(f"{name}: one class only ({', '.join(classes)}), expected two or more")
    counts = np.bincount(targets[held:], minlength=len(classes))
    missing = [label for label, count in zip(classes, counts, strict=True) if not count]
    if missing:
        raise ValueError(
            f"{name}: no training sample of class {missing[0]} ({len(missing)} of {len(classes)} classes "
            "have none), expected one or more of each"
        )
