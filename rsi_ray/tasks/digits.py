"""The task `digits`: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rsi_ray.tasks.images import image_domain
from rsi_ray.tasks.options import HOLDOUT_SIZES, SEEDS, check_ranges, library
from rsi_ray.tasks.task import DomainTask
from search_spaces.heads import ImageHead


@dataclass(frozen=True, kw_only=True, slots=True)
class DigitsOptions:
    """How the digits are split.

    Attributes:
        holdout_size: hold-out samples, and as many that are sealed.
        seed: of the split.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    holdout_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, {"holdout_size": HOLDOUT_SIZES, "seed": SEEDS})


DIGITS_DEFAULTS = DigitsOptions()


@lru_cache(maxsize=2)
def digits_task(options: DigitsOptions = DIGITS_DEFAULTS) -> DomainTask[ImageHead]:
    """Return the task with these options, prepared once per process.

    Raises:
        ValueError: scikit-learn isn't installed, or the hold-out is more than a third of the digits.
    """
    bundled = library("sklearn.datasets", package="scikit-learn", task="digits").load_digits()
    domain = image_domain(
        "digits",
        bundled.images.astype(np.uint8)[:, None],
        [str(digit) for digit in bundled.target],
        holdout_size=options.holdout_size,
        seed=options.seed,
    )
    return DomainTask([domain], holdout_size=options.holdout_size)
