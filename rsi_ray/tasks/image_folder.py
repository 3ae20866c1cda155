"""The task `image_folder`: pictures in one folder per class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from rsi_ray.tasks.images import MODES, image_domain, read_image
from rsi_ray.tasks.options import HOLDOUT_SIZES, SEEDS, check_ranges, check_texts
from rsi_ray.tasks.task import DomainTask
from search_spaces.heads import ImageHead

SUFFIXES = (".png", ".jpg", ".jpeg")
SIDES = (1, 1024)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFolderOptions:
    """Where the pictures are, and how they are read and split.

    Attributes:
        path: a folder with a folder for each class; hidden ones are passed over.
        height, width: pixels that every picture is stretched to.
        channels: 1 for grey, 3 for colours.
        holdout_size: hold-out samples, and as many that are sealed.
        seed: of the split.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    path: str
    height: int = 32
    width: int = 32
    channels: int = 3
    holdout_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_texts(self, "path")
        check_ranges(self, {"height": SIDES, "width": SIDES, "holdout_size": HOLDOUT_SIZES, "seed": SEEDS})
        if self.channels not in MODES:
            raise ValueError(f"channels must be 1 or 3, not {self.channels!r}")


@lru_cache(maxsize=2)
def image_folder_task(options: ImageFolderOptions) -> DomainTask[ImageHead]:
    """Return the task with these options, prepared once per process.

    Raises:
        ValueError: the folder, a class or a picture can't be read, or there is too little for the hold-out.
    """
    paths = _paths(Path(options.path))
    size = (options.height, options.width)
    pictures = [read_image(path, where=str(path), size=size, channels=options.channels) for path in paths]
    domain = image_domain(
        "images",
        np.stack(pictures),
        [path.parent.name for path in paths],
        holdout_size=options.holdout_size,
        seed=options.seed,
    )
    return DomainTask([domain], holdout_size=options.holdout_size)


def _paths(folder: Path) -> list[Path]:
    """List the pictures of every class, in the order of their names."""
    if not folder.is_dir():
        raise ValueError(f"path: {folder} is not a folder, expected one with a folder of pictures per class")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise ValueError(f"path: {folder} holds no folders, expected one for each class")
    found = {path: _pictures(path) for path in classes}
    for path, pictures in found.items():
        if not pictures:
            raise ValueError(f"path: no pictures in {path}, expected files {', '.join(SUFFIXES)}")
    return [picture for pictures in found.values() for picture in pictures]


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
