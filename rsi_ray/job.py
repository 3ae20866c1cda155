"""What the candidates of a sweep do, whatever it is: the interface between a sweep and its workers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safety import Claim, Measured


class Run(Protocol):
    """One candidate in training."""

    def next_report(self) -> Mapping[str, object]:
        """Train up to the next report: at least `score` and `domains`."""
        ...

    def save(self, path: Path) -> None:
        """Write the whole state to a file."""
        ...

    def restore(self, path: Path) -> None:
        """Continue from a saved state."""
        ...

    def export(self, path: Path) -> None:
        """Write the weights alone."""
        ...


class Job(Protocol):
    """What the candidates of a sweep do; sent to every worker."""

    def price(self, config: Mapping[str, Any]) -> Claim:
        """Claim of a configuration, by arithmetic."""
        ...

    def measure(self, config: Mapping[str, Any]) -> Measured:
        """Count the model that would be built, without allocating it."""
        ...

    def begin(self, config: Mapping[str, Any]) -> Run:
        """Build the candidate."""
        ...

    def digest(self) -> str:
        """SHA-256 of the data that scores depend on, in hex."""
        ...
