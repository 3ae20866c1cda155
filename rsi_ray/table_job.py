"""Replays a published benchmark table: a candidate's score is looked up, and nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety import Claim, Measured
from search_spaces.given_trial import spec_from
from search_spaces.measure import measure_space
from search_spaces.space import Suggest
from search_spaces.tabular import TabularSpace

DOMAIN = "table"


@dataclass(frozen=True, kw_only=True)
class TableJob:
    """Every gate as for a training, the model built and counted on the meta device; then one look-up.

    Attributes:
        space: the table.
        trial_seconds: longest time of one look-up.
    """

    space: TabularSpace
    trial_seconds: int = 60

    def suggest(self, trial: Suggest) -> Any:
        """Choose a row."""
        return self.space.suggest(trial)

    def price(self, config: Mapping[str, Any]) -> Claim:
        """Claim of a candidate: the ceilings bind what it would be, and it computes nothing."""
        cost = self.space.cost(self._spec(config))
        return Claim(
            params=cost.params,
            forward_flops=cost.forward_flops,
            memory_bytes=cost.memory_bytes,
            train_flops=0,
            wall_ms=self.trial_seconds * 1000,
        )

    def measure(self, config: Mapping[str, Any]) -> Measured:
        """Count the model that the row stands for, on the meta device."""
        found = measure_space(self.space, self._spec(config))
        return Measured(params=found.params, forward_flops=found.forward_flops)

    def begin(self, config: Mapping[str, Any]) -> LookUp:
        """Find the row."""
        return LookUp(score=self.space.score(self._spec(config)))

    def digest(self) -> str:
        """SHA-256 of the table."""
        return self.space.digest

    def _spec(self, config: Mapping[str, Any]) -> Any:
        spec, _ = spec_from(self.space, config)
        return spec


@dataclass(frozen=True, kw_only=True)
class LookUp:
    """One row of a table, told as a report."""

    score: float

    def next_report(self) -> Mapping[str, object]:
        """The row's score."""
        return {"score": self.score, "domains": {DOMAIN: self.score}}

    def save(self, path: Path) -> None:
        """An empty file: there is no state."""
        path.touch()

    def restore(self, path: Path) -> None:
        """Nothing to restore."""

    def export(self, path: Path) -> None:
        """An empty file: there are no weights."""
        path.touch()
