"""Spaces replayed from published benchmark tables: a candidate's score is looked up, not trained for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow
from pyarrow import parquet

from search_spaces.cost import Cost
from search_spaces.digest import check_digest, file_digest
from search_spaces.hw_gpt import HwGpt
from search_spaces.hw_gpt_surrogate import PerplexitySurrogate
from search_spaces.nas_bench_201 import NasBench201
from search_spaces.nas_bench_macro import NasBenchMacro
from search_spaces.per_sample import PerSample, training_cost
from search_spaces.sizes import problems_of_size, refuse
from search_spaces.space import Sample, Suggest

if TYPE_CHECKING:
    from torch import nn

HW_GPT_SURROGATE = "hw_gpt_s_surrogate.npz"


class NotInTable(LookupError):
    """The table has no row of this spec."""


class Architectures(Protocol):
    """What a table is about; its specs are of one frozen type."""

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that say which architecture a row is of."""
        ...

    @property
    def score_column(self) -> str:
        """The column that is searched."""
        ...

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Whether more of that column is better."""
        ...

    @property
    def heads(self) -> tuple[Any, ...]:
        """The one task."""
        ...

    def suggest(self, trial: Suggest) -> Any:
        """Choose a spec."""
        ...

    def per_sample(self, spec: Any) -> PerSample:
        """Count by arithmetic alone."""
        ...

    def samples(self) -> Mapping[str, Sample]:
        """One sample of the head."""
        ...

    def build(self, spec: Any) -> nn.Module:
        """Build the model."""
        ...

    def key(self, spec: Any) -> tuple[str, ...]:
        """The spec as the key columns say it."""
        ...

    def spec(self, key: tuple[str, ...]) -> Any:
        """The spec that the key columns say."""
        ...

    def score(self, value: float) -> float:
        """A number of the score column, so that more is better."""
        ...


ARCHITECTURES: tuple[Architectures, ...] = (NasBenchMacro(), NasBench201(), HwGpt())


@dataclass(frozen=True, kw_only=True)
class TabularSpace:
    """A published space whose architectures are priced and built in truth, and scored from its table.

    Small to pickle: each process reads the table when it first looks something up, so every node has to
    find the file at the same path.

    Attributes:
        architectures: what the table is about.
        path: the table, a Parquet file.
        digest: SHA-256 of that file.
        batch_size: samples of a training step, for the price.
        surrogate: the score column of a spec that the table lacks.
    """

    architectures: Architectures
    path: Path = field(repr=False)
    digest: str
    batch_size: int
    surrogate: PerplexitySurrogate | None = None

    def __post_init__(self) -> None:
        refuse(problems_of_size("batch_size", self.batch_size))

    @property
    def heads(self) -> tuple[Any, ...]:
        """The one task that the architectures are made for."""
        return self.architectures.heads

    @property
    def score_column(self) -> str:
        """The column that `score` reads."""
        return self.architectures.score_column

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Whether more of the score column is better; of `score`, more is better always."""
        return self.architectures.direction

    def suggest(self, trial: Suggest) -> Any:
        """Choose a spec of the space, also one that the table lacks."""
        return self.architectures.suggest(trial)

    def cost(self, spec: Any) -> Cost:
        """Price the training of the spec on one sample of the head, as `training_cost` says."""
        return training_cost(self.architectures.per_sample(spec), self.batch_size)

    def samples(self) -> Mapping[str, Sample]:
        """One sample of the head."""
        return self.architectures.samples()

    def build(self, spec: Any) -> nn.Module:
        """Build the published model, with fresh weights, on the current default device."""
        return self.architectures.build(spec)

    @property
    def size(self) -> int:
        """Rows of the table."""
        return len(self._table.index)

    def rows(self) -> Iterator[tuple[Any, Mapping[str, float]]]:
        """Every spec of the table with its row, in the table's order."""
        for key, index in self._table.index.items():
            yield self.architectures.spec(key), self._table.row(index)

    def row(self, spec: Any) -> Mapping[str, float]:
        """The numbers that the table holds of the spec, by column.

        Raises:
            NotInTable: it holds none.
        """
        key = self.architectures.key(spec)
        index = self._table.index.get(key)
        if index is None:
            said = ", ".join(f"{n}={v}" for n, v in zip(self.architectures.key_columns, key, strict=True))
            raise NotInTable(f"{self.path}: no row of {said}, expected one of its {self.size} architectures")
        return self._table.row(index)

    def score(self, spec: Any) -> float:
        """The score, of which more is better: accuracy as a share, or the negative of the perplexity.

        A spec that the table lacks is answered by the surrogate.

        Raises:
            NotInTable: the table lacks it and there is no surrogate.
        """
        if self.surrogate is not None and self.architectures.key(spec) not in self._table.index:
            return self.architectures.score(self.surrogate(spec))
        return self.architectures.score(self.row(spec)[self.score_column])

    @property
    def _table(self) -> _Table:
        return _read(self.path, self.digest, self.architectures.key_columns)


def load_table(path: Path, *, batch_size: int = 32) -> TabularSpace:
    """Recognise a published table by its columns: NAS-Bench-Macro, NAS-Bench-201 or HW-GPT-Bench (small).

    For HW-GPT-Bench, `hw_gpt_s_surrogate.npz` beside the table answers for the specs that the table lacks.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another table, or none.
    """
    path = Path(path).resolve()  # a worker runs in a folder of its own
    digest = file_digest(path)
    try:
        columns = set(parquet.read_schema(path).names)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a Parquet file, expected a benchmark table in that format") from error
    for architectures in ARCHITECTURES:
        if columns.issuperset((*architectures.key_columns, architectures.score_column)):
            return TabularSpace(
                architectures=architectures,
                path=path,
                digest=digest,
                batch_size=batch_size,
                surrogate=_surrogate_beside(path) if isinstance(architectures, HwGpt) else None,
            )
    known = "; or ".join(
        f"{', '.join((*one.key_columns, one.score_column))} ({type(one).__name__})" for one in ARCHITECTURES
    )
    raise ValueError(f"{path}: columns {', '.join(sorted(columns))}, expected among them {known}")


def _surrogate_beside(table: Path) -> PerplexitySurrogate | None:
    path = table.with_name(HW_GPT_SURROGATE)
    return PerplexitySurrogate(path=path, digest=file_digest(path)) if path.exists() else None


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A table in memory: the row of each key, and the columns that are numbers."""

    index: Mapping[tuple[str, ...], int]
    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]

    def row(self, index: int) -> Mapping[str, float]:
        return dict(zip(self.columns, self.values[index].tolist(), strict=True))


@lru_cache(maxsize=8)
def _read(path: Path, digest: str, key_columns: tuple[str, ...]) -> _Table:
    check_digest(path, digest)
    frame = pd.read_parquet(path)
    keys = zip(*(frame[column].astype(str) for column in key_columns), strict=True)
    numbers = frame.select_dtypes("number")
    return _Table(
        index={key: index for index, key in enumerate(keys)},
        columns=tuple(numbers.columns),
        values=numbers.to_numpy(dtype=np.float64),
    )
