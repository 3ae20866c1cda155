"""The task `text_files`: next-byte prediction on the user's own texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rsi_ray.tasks.options import HOLDOUT_SIZES, check_ranges, check_tuple_of_texts
from rsi_ray.tasks.task import DomainTask
from rsi_ray.tasks.text import text_domain, without_repeats
from search_spaces.transformer import Head

LENGTHS = (1, 65_536)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFilesOptions:
    """Where the texts are, and how they are cut.

    Attributes:
        paths: files, or folders of which every `.txt` file is taken, those of folders within too.
        text_length: bytes per sample.
        holdout_size: hold-out samples, and as many that are sealed.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    paths: tuple[str, ...]
    text_length: int = 64
    holdout_size: int = 256

    def __post_init__(self) -> None:
        check_tuple_of_texts(self, "paths")
        check_ranges(self, {"text_length": LENGTHS, "holdout_size": HOLDOUT_SIZES})
        if not self.paths:
            raise ValueError("paths must name one file or folder or more")


@lru_cache(maxsize=2)
def text_files_task(options: TextFilesOptions) -> DomainTask[Head]:
    """Return the task with these options, prepared once per process.

    A paragraph that occurs more than once is kept once.

    Raises:
        ValueError: a file can't be read, or there is too little text for the hold-out.
    """
    files = [file for path in options.paths for file in _files(Path(path))]
    text = without_repeats(_read(file) for file in files)
    domain = text_domain("text", text, length=options.text_length, holdout_size=options.holdout_size)
    return DomainTask([domain], holdout_size=options.holdout_size)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*.txt") if file.is_file())
    if not files:
        raise ValueError(f"paths: no .txt file in the folder {path}, expected one or more")
    return files


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"paths: {path}: {error.strerror}, expected a file or folder that can be read"
        ) from None
