"""Which parameters a spec has: learned from which were asked after which answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Parts = npt.NDArray[np.int64]
PARTS = 16
# gates that decide together whether one parameter is asked
GATES = 3


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A parameter that is asked by the value of another one.

    Attributes:
        asked: index of the parameter.
        by: index of the other one.
        seen: parts of the other's range that were seen, -1 where it was absent.
        closed: whether it was absent at each of them.
    """

    asked: int
    by: int
    seen: Parts
    closed: npt.NDArray[np.bool_]

    def shut(self, parts: Parts) -> npt.NDArray[np.bool_]:
        """Whether it is absent at these parts; as at the nearest, where one was never seen."""
        return self._nearest[np.minimum(parts + 1, len(self._nearest) - 1)]

    @cached_property
    def _nearest(self) -> npt.NDArray[np.bool_]:
        """Whether it is absent at each part from -1 on; past the last that was seen it is as there."""
        parts = np.arange(-1, self.seen.max() + 1)
        return np.asarray(self.closed[np.abs(parts[:, None] - self.seen).argmin(axis=1)])


@dataclass(frozen=True, kw_only=True)
class Presence:
    """The gates of a space, those of a parameter that is asked earlier first.

    Attributes:
        gates: a parameter is absent where one of its gates is shut.
        choices: which fields are choices without order, whose places are indices.
    """

    gates: Sequence[Gate]
    choices: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Array, choices: npt.NDArray[np.bool_]) -> Presence:
        """Learn from rows of whole specs."""
        absent = np.isnan(rows)
        sometimes = np.flatnonzero(absent.any(axis=0) & ~absent.all(axis=0))
        parts = parts_of(rows, choices) if len(sometimes) else np.empty((0, 0), dtype=np.int64)
        gates = [gate for asked in sometimes for gate in _gates(int(asked), parts, absent)]
        return cls(gates=gates, choices=choices)

    def unexplained(self, rows: Array) -> int:
        """Rows of whole specs in which not just that is absent which the gates say."""
        shut = np.zeros(rows.shape, dtype=np.bool_)
        parts = parts_of(rows, self.choices)
        for gate in self.gates:
            shut[:, gate.asked] |= gate.shut(parts[:, gate.by])
        return int((shut != np.isnan(rows)).any(axis=1).sum())

    def absent(self, rows: Array, asked: int) -> npt.NDArray[np.bool_]:
        """Which rows, as far as they are written, don't have a field."""
        shut = np.zeros(len(rows), dtype=np.bool_)
        for gate in self.gates:
            if gate.asked == asked and gate.by < asked:
                shut |= gate.shut(parts_of(rows[:, gate.by], self.choices[gate.by]))
        return shut

    def applied(self, rows: Array) -> Array:
        """Rows without what would not be asked."""
        if not self.gates:
            return rows
        parts = parts_of(rows, self.choices)
        for gate in self.gates:
            parts[gate.shut(parts[:, gate.by]), gate.asked] = -1
        return np.where(parts < 0, np.nan, rows)


def parts_of(rows: Array, choices: npt.NDArray[np.bool_] | np.bool_) -> Parts:
    """The part of its field that each place is in, -1 where it is absent, (rows, fields)."""
    parts = np.where(choices, rows, np.round(rows * PARTS))
    return np.where(np.isnan(rows), -1, parts).astype(np.int64)


def _gates(asked: int, parts: Parts, absent: npt.NDArray[np.bool_]) -> list[Gate]:
    """The gates that say best where a parameter is absent; one more while that explains more."""
    gates: list[Gate] = []
    unexplained = absent[:, asked].copy()
    present = ~absent[:, asked]
    while unexplained.any() and len(gates) < GATES:
        best = max(
            (_gate(asked, by, parts, unexplained, present) for by in range(parts.shape[1]) if by != asked),
            key=lambda found: (found[0], -int(absent[:, found[1].by].any()), -found[1].by),
        )
        if best[0] <= 0:
            break
        gates.append(best[1])
        unexplained &= ~best[1].shut(parts[:, best[1].by])
    return gates


def _gate(
    asked: int, by: int, parts: Parts, unexplained: npt.NDArray[np.bool_], present: npt.NDArray[np.bool_]
) -> tuple[int, Gate]:
    """A gate and how many more rows it gets right than none."""
    seen, which = np.unique(parts[:, by], return_inverse=True)
    gained = np.bincount(which, unexplained, len(seen)) - np.bincount(which, present, len(seen))
    closed = gained > 0
    return int(gained[closed].sum()), Gate(asked=asked, by=by, seen=seen, closed=closed)
