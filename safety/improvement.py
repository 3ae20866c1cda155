"""Improvement of a candidate over the champion, and its ceiling."""

from __future__ import annotations

import math
from typing import Literal

from safety.limits import Limits
from safety.verdict import Allow, Hold, Verdict

Mode = Literal["max", "min"]


def improvement(*, old: float, new: float, mode: Mode = "max") -> float | None:
    """Relative improvement of new over old; None where it is undefined.

    `(new - old) / |old|` where more is better, `(old - new) / |old|` where less is. Undefined where
    old is zero or either is not finite, or their signs differ.
    """
    if not (math.isfinite(old) and math.isfinite(new)) or old == 0:
        return None
    if new != 0 and math.copysign(1, old) != math.copysign(1, new):
        return None
    gain = new - old if mode == "max" else old - new
    return gain / abs(old)


def max_improvement_rate(limits: Limits, *, old: float, new: float, mode: Mode = "max") -> Verdict:
    """Hold for a human what improves faster than the ceiling, or by an undefined amount."""
    rate = improvement(old=old, new=new, mode=mode)
    if rate is None:
        return Hold("max_improvement_rate", f"the improvement from {old!r} to {new!r} is undefined")
    if not rate <= limits.max_improvement_rate:
        ceiling = limits.max_improvement_rate
        return Hold("max_improvement_rate", f"improvement {rate:+.1%} is over the ceiling of {ceiling:.1%}")
    return Allow()
