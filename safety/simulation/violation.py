"""How a rehearsal says that an invariant does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safety.simulation.storage import Failure


class Violated(Exception):
    """An invariant does not hold; the message says which, and how.

    No SafetyError: the simulated parties, which outlive those, must not catch it.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A call that reached the ledger.

    Attributes:
        failing: how the database fails during it.
        must_deny: why the answer may not be Allow; "" where it may.
    """

    method: str
    arguments: tuple[Any, ...]
    failing: Failure | None = None
    must_deny: str = ""


def require(holds: bool, invariant: str, told: str) -> None:
    """Go on where an invariant holds.

    Raises:
        Violated: it does not.
    """
    if not holds:
        raise Violated(f"{invariant}: {told}")
