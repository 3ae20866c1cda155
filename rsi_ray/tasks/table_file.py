"""The task `table`: the user's own CSV or Parquet file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import get_args

import pandas as pd
import pyarrow as pa

from rsi_ray.tasks.options import (
    HOLDOUT_SIZES,
    SEEDS,
    check_ranges,
    check_texts,
    check_tuple_of_texts,
)
from rsi_ray.tasks.table import MAX_LEVELS, Kind, table_domain
from rsi_ray.tasks.task import DomainTask
from search_spaces.heads import TableHead

READERS: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}


@dataclass(frozen=True, kw_only=True, slots=True)
class TableOptions:
    """Where the table is, and what is learned from it.

    Attributes:
        path: a `.csv` or `.parquet` file, one row per sample; the columns of a CSV are named in its first
            line.
        target: column with the answers.
        target_kind: classification or regression; where it is left out, regression if the target's numbers
            are floats, else classification.
        ignore: columns that are left out.
        max_levels: levels of a column of categories, at most.
        holdout_size: hold-out samples, and as many that are sealed.
        seed: of the split.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    path: str
    target: str
    target_kind: Kind | None = None
    ignore: tuple[str, ...] = ()
    max_levels: int = MAX_LEVELS
    holdout_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_texts(self, "path", "target")
        check_tuple_of_texts(self, "ignore")
        check_ranges(self, {"max_levels": (1, 4096), "holdout_size": HOLDOUT_SIZES, "seed": SEEDS})
        if self.target_kind is not None and self.target_kind not in get_args(Kind):
            raise ValueError(
                f"target_kind must be one of {', '.join(get_args(Kind))}, not {self.target_kind!r}"
            )


@lru_cache(maxsize=2)
def table_task(options: TableOptions) -> DomainTask[TableHead]:
    """Return the task with these options, prepared once per process.

    Raises:
        ValueError: the file can't be read, or holds too little or something else than it should.
    """
    domain = table_domain(
        "table",
        read_frame(Path(options.path)),
        target=options.target,
        kind=options.target_kind,
        ignore=options.ignore,
        max_levels=options.max_levels,
        holdout_size=options.holdout_size,
        seed=options.seed,
        where=Path(options.path).name,
    )
    return DomainTask([domain], holdout_size=options.holdout_size)


def read_frame(path: Path) -> pd.DataFrame:
    """Read a table.

    Raises:
        ValueError: there is no such file, or it is no table; the message names it.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"path: {path}, expected a file that ends in {' or '.join(READERS)}")
    if not path.is_file():
        raise ValueError(f"path: {path} is not a file, expected a table")
    try:
        return reader(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"path: {path}: {first}, expected a {path.suffix} table") from None
