"""A decision: Allow, Hold or Deny, each of the latter with the rule that decided and a reason."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Allow:
    """Go on."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now: the answer may change when something else ends or a human decides.

    Attributes:
        rule: name of the rule that decided.
        reason: the numbers, for people.
        until_ms: Unix time in milliseconds from which it is worth asking again; 0 where time changes nothing.
    """

    rule: str
    reason: str
    until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Deny:
    """No.

    Attributes:
        rule: name of the rule that decided.
        reason: the numbers, for people.
        excess: how far over, relative to the ceiling, by rule; above 0 is infeasible (Optuna's sign).
    """

    rule: str
    reason: str
    excess: dict[str, float] = field(default_factory=dict)


Verdict = Allow | Hold | Deny
