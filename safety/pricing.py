"""Claims from what people say of a trial's cost: what they leave out is taken at its ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from safety.claim import GPU_MS, TRAIN_GFLOP, WALL_MS, Claim
from safety.document import flop_count, whole_number
from safety.errors import PriceError
from safety.limits import Bounds

Cost = Callable[[Mapping[str, Any]], Claim | Mapping[str, Any]]

# longest time of a trial where no budget counts time, milliseconds
ENDLESS_MS = 365 * 24 * 3600 * 1000
_FIELDS = {field.name for field in fields(Claim)}
_HINTS = {
    TRAIN_GFLOP: "tell train_flops in cost=",
    WALL_MS: "tell trial_seconds=, or wall_ms in cost=",
    GPU_MS: "tell trial_seconds=, or wall_ms in cost=",
}


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """Prices the configurations of a sweep.

    Attributes:
        bounds: ceilings, which stand for what isn't told.
        cost: what people say of a configuration; None for nothing.
        trial_seconds: longest time of a trial; None where it isn't told.
        reports: reports that a trial makes; None where it isn't known. Then the claim is for one, so all
            of it is charged as soon as a trial has begun.
        counted: resources that a budget limits, whose amounts must be told.
    """

    bounds: Bounds
    cost: Cost | None
    trial_seconds: int | None
    reports: int | None
    counted: frozenset[str]

    def __call__(self, config: Mapping[str, Any]) -> Claim:
        """Claim of a configuration.

        Raises:
            PriceError: something is told that is no amount, or a budget counts what isn't told.
        """
        told = self.cost(config) if self.cost else {}
        if isinstance(told, Claim):
            return told
        if not isinstance(told, Mapping) or not told.keys() <= _FIELDS:
            known = ", ".join(sorted(_FIELDS))
            raise PriceError(f"cost: expected a Claim or a mapping of {known}, found {told!r:.80}")
        return Claim(**{**self._ceilings(told), **{name: _amount(name, told[name]) for name in told}})

    def _ceilings(self, told: Mapping[str, Any]) -> dict[str, int]:
        missing = set()
        if "train_flops" not in told:
            missing |= {TRAIN_GFLOP}
            if self.bounds.max_train_flops is not None:
                raise PriceError(
                    "cost: bounds.max_train_flops is their ceiling, and nothing tells a trial's: "
                    f"{_HINTS[TRAIN_GFLOP]}"
                )
        if "wall_ms" not in told and self.trial_seconds is None:
            missing |= {WALL_MS, GPU_MS}
        for resource in sorted(missing & self.counted):
            raise PriceError(f"cost: a budget counts {resource}, and nothing tells it: {_HINTS[resource]}")
        return {
            "params": self.bounds.max_params,
            "forward_flops": self.bounds.max_flops,
            "memory_bytes": self.bounds.max_memory,
            "train_flops": 0,
            "wall_ms": ENDLESS_MS if self.trial_seconds is None else self.trial_seconds * 1000,
            "reports": self.reports or 1,
        }


def _amount(name: str, value: object) -> int:
    try:
        return flop_count(value) if name in ("train_flops", "ancestor_flops") else whole_number(value)
    except ValueError as error:
        raise PriceError(f"cost: {name}: {error}, found {value!r:.40}") from None
