"""Improvement of a candidate over the champion: its ceilings, and the detector of runaway gains.

Scores count as the decimals that Python shows for them, so that 0.6 over 0.5 is exactly 20% and a gain of
0.15 after one of 0.1 exactly 1.5 times it; floating point alone would put either on the wrong side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal, get_args

from safety.limits import Limits
from safety.rules import is_finite_number
from safety.verdict import Allow, Deny, Hold, Verdict

Mode = Literal["max", "min"]
RATE, RUNAWAY, GENERATIONS = "max_improvement_rate", "runaway", "max_generations"
MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """A champion that took another's place, or would.

    Attributes:
        lineage: line of champions that it belongs to.
        key: names it; the same key is the same promotion.
        at_ms: Unix time in milliseconds.
        old, new: score of the champion before it, and its own.
        mode: whether a larger or a smaller score is better.
        rolled_back: whether its lineage went back to a champion before it.
        cleared: whether it came before a release of its lineage, by people who have looked at it.
    """

    lineage: str
    key: str
    at_ms: int
    old: float
    new: float
    mode: Mode = "max"
    rolled_back: bool = False
    cleared: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown mode: it would silently be one of the two."""
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode: expected max or min, found {self.mode!r:.60}")

    @property
    def gain(self) -> Fraction | None:
        """How much better the new score is, exactly; None where a score is no finite number."""
        if not (is_finite_number(self.old) and is_finite_number(self.new)):
            return None
        gain = _exact(self.new) - _exact(self.old)
        return gain if self.mode == "max" else -gain

    @property
    def rate(self) -> Fraction | None:
        """The gain relative to the old score; None where it is undefined: see `improvement`."""
        gain = self.gain
        if gain is None or self.old == 0:
            return None
        if self.new != 0 and math.copysign(1, self.old) != math.copysign(1, self.new):
            return None
        return gain / abs(_exact(self.old))


def _exact(score: float) -> Fraction:
    return Fraction(repr(float(score)))


def improvement(*, old: float, new: float, mode: Mode = "max") -> float | None:
    """Relative improvement of new over old; None where it is undefined.

    `(new - old) / |old|` where more is better, `(old - new) / |old|` where less is. Undefined where
    old is zero or either is not finite, or their signs differ.
    """
    rate = Promotion(lineage="", key="", at_ms=0, old=old, new=new, mode=mode).rate
    return None if rate is None else _float(rate)


def _float(rate: Fraction) -> float:
    try:
        return float(rate)
    except OverflowError:
        return math.inf if rate > 0 else -math.inf


def max_improvement_rate(limits: Limits, *, old: float, new: float, mode: Mode = "max") -> Verdict:
    """Hold for a human what improves faster than the ceiling, or by an undefined amount."""
    rate = improvement(old=old, new=new, mode=mode)
    if rate is None:
        return Hold(RATE, f"the improvement from {old!r:.60} to {new!r:.60} is undefined")
    if not rate <= limits.max_improvement_rate:
        ceiling = limits.max_improvement_rate
        return Hold(RATE, f"improvement {rate:+.1%} is over the ceiling of {ceiling:.1%}")
    return Allow()


def compounded(promotions: Sequence[Promotion]) -> float | None:
    """Improvement of several promotions on top of each other; None where one of them is undefined.

    A loss makes no room for a later gain: it may have been measured in another sweep, by another metric.
    """
    growth = Fraction(1)
    for promotion in promotions:
        rate = promotion.rate
        if rate is None:
            return None
        growth *= 1 + max(rate, Fraction(0))
    return _float(growth - 1)


def within_window(limits: Limits, history: Sequence[Promotion], now_ms: int) -> list[Promotion]:
    """Promotions of the last `improvement_window_hours`; one that the clock puts after now is among them.

    A rollback makes no room in it, a release does: what it left rolled back is no part of any champion.
    """
    begin_ms = now_ms - limits.improvement_window_hours * MS_PER_HOUR
    counted = [one for one in history if not (one.cleared and one.rolled_back)]
    return [promotion for promotion in counted if promotion.at_ms >= begin_ms]


def improvement_in_window(limits: Limits, history: Sequence[Promotion], candidate: Promotion) -> Verdict:
    """Hold what would take its lineage over the ceiling together with the promotions of the window."""
    recent = within_window(limits, history, candidate.at_ms)
    rate = compounded([*recent, candidate])
    ceiling, hours = limits.max_improvement_rate, limits.improvement_window_hours
    if rate is None:
        return Hold(RATE, f"the improvement of lineage {candidate.lineage} within {hours} h is undefined")
    if not rate <= ceiling:
        return Hold(
            RATE,
            f"improvement {rate:+.1%} of lineage {candidate.lineage} in {len(recent) + 1} promotions within "
            f"{hours} h is over the ceiling of {ceiling:.1%}",
        )
    return Allow()


def room_from_ms(limits: Limits, history: Sequence[Promotion], candidate: Promotion) -> int | None:
    """Unix time in milliseconds when the window has room for a candidate; None where waiting won't help.

    For a candidate that is over the ceiling now.
    """
    recent = within_window(limits, history, candidate.at_ms)
    recent.sort(key=lambda promotion: promotion.at_ms)
    for count, newest in enumerate(recent, start=1):
        rate = compounded([*recent[count:], candidate])
        if rate is not None and rate <= limits.max_improvement_rate:
            return newest.at_ms + limits.improvement_window_hours * MS_PER_HOUR + 1
    return None


def accelerates(earlier: Promotion, later: Promotion, factor: float) -> bool:
    """Whether the later one gains more than `factor` times what the earlier one did, which is positive."""
    if earlier.gain is None or later.gain is None:
        return False
    return earlier.gain > 0 and later.gain > _exact(factor) * earlier.gain


def is_runaway(limits: Limits, history: Sequence[Promotion]) -> bool:
    """Whether the last promotions gain faster and faster; the history is in the order of promotion.

    Of the last `runaway_length` gains, all positive, each is more than `runaway_factor` times the one before:
    with three gains, two comparisons. They are the guide's differences of scores, which are defined where a
    relative improvement isn't. A gain that is no number tells nothing; `max_improvement_rate` holds it.
    """
    last = history[-limits.runaway_length :]
    if len(last) < limits.runaway_length:
        return False
    return all(accelerates(earlier, later, limits.runaway_factor) for earlier, later in pairwise(last))


def max_generations(limits: Limits, history: Sequence[Promotion], candidate: Promotion) -> Verdict:
    """Promotions of a lineage against their greatest number."""
    generation = len(history) + 1
    if not generation <= limits.max_generations:
        return Deny(
            GENERATIONS,
            f"generation {generation} of lineage {candidate.lineage} is over the ceiling of "
            f"{limits.max_generations}",
        )
    return Allow()


def judge_promotion(limits: Limits, history: Sequence[Promotion], candidate: Promotion) -> Verdict:
    """A candidate against its lineage's history, before it takes the champion's place.

    Hold: a human decides, or, with `until_ms`, time does. Deny by `max_generations`: its lineage is complete.
    By any other rule: it is to be shut down, since it runs away with this candidate or already has, or since
    that is what the limits choose on excess.

    What a lineage ran away by before its release is no reason to shut it down again: it would never go on.
    What was rolled back counts with the rest, and is left out too: it must not hide an acceleration.

    Args:
        limits: whose ceilings count.
        history: the lineage's promotions in order.
        candidate: what would be promoted, with the time of the judgement.
    """
    since = [promotion for promotion in history if not promotion.cleared]
    line = [promotion for promotion in since if not promotion.rolled_back]
    for gains in ([*since, candidate], since, [*line, candidate], line):
        if is_runaway(limits, gains):
            return Deny(RUNAWAY, _runaway_text(limits, gains))
    complete = max_generations(limits, history, candidate)
    if isinstance(complete, Deny):
        return complete
    verdict = max_improvement_rate(limits, old=candidate.old, new=candidate.new, mode=candidate.mode)
    if isinstance(verdict, Allow):
        verdict = improvement_in_window(limits, history, candidate)
    return _on_excess(limits, history, candidate, verdict)


def _on_excess(
    limits: Limits, history: Sequence[Promotion], candidate: Promotion, verdict: Verdict
) -> Verdict:
    """What the limits choose for what is over the ceiling; what is undefined is held whatever they choose."""
    recent = within_window(limits, history, candidate.at_ms)
    if not isinstance(verdict, Hold) or compounded([*recent, candidate]) is None:
        return verdict
    if limits.on_excess == "shutdown":
        return Deny(verdict.rule, verdict.reason)
    until_ms = room_from_ms(limits, history, candidate) if limits.on_excess == "throttle" else None
    return verdict if until_ms is None else Hold(verdict.rule, verdict.reason, until_ms=until_ms)


def _runaway_text(limits: Limits, gains: Sequence[Promotion]) -> str:
    last = gains[-limits.runaway_length :]
    shown = ", ".join(f"{_float(promotion.gain or Fraction(0)):.4g}" for promotion in last)
    factor = f"{limits.runaway_factor:g}"
    return f"lineage {last[-1].lineage} gained {shown}: each more than {factor} times the one before"
