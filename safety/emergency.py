"""Emergency shutdown of a lineage: its steps, what is left of them, and which champion is safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, get_args

from safety.improvement import Promotion, accelerates

Step = Literal["frozen", "revoked", "saved", "reverted", "alerted", "acknowledged", "released"]
STEPS: tuple[Step, ...] = get_args(Step)
# those that take people; all others complete by themselves, after a crash too
BY_PEOPLE: tuple[Step, ...] = ("acknowledged", "released")
# what must be done before; an alert that nobody takes holds nothing up but its acknowledgement
_NEEDS: dict[Step, tuple[Step, ...]] = {
    "saved": ("revoked",),
    "reverted": ("revoked", "saved"),
    "released": ("revoked", "saved", "reverted", "acknowledged"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A step that was taken.

    Attributes:
        at_ms: Unix time in milliseconds.
        by: who took it.
        told: what there is to say of it; "" for nothing.
    """

    step: Step
    at_ms: int
    by: str
    told: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """An emergency shutdown of a lineage.

    Attributes:
        number: its own.
        digest: hash of its row in the audit, which an approval of its release is bound to.
        lineage: nothing of it is admitted, begun, renewed, promoted or opened until the release.
        sweep: that ran away, or one of the lineage.
        rule: that decided; "operator" where a person did.
        reason: for people.
        by: who shut it down.
        safe: artifact that the lineage is reverted to; "" for what it began with, or where none was told.
        done: the steps that were taken, in the order in which they were.
    """

    number: int
    digest: str
    lineage: str
    sweep: str
    rule: str
    reason: str
    by: str
    safe: str
    done: tuple[Done, ...]

    @property
    def name(self) -> str:
        """Names it among those of all ledgers: its lineage and the beginning of its digest."""
        return f"{self.lineage}-{self.digest[:12]}"

    @property
    def at_ms(self) -> int:
        """When it was frozen, Unix time in milliseconds."""
        return self.done[0].at_ms

    def step(self, step: Step) -> Done | None:
        """A step of it, if it was taken."""
        return next((done for done in self.done if done.step == step), None)

    @property
    def is_acknowledged(self) -> bool:
        """Whether somebody has said that they know of it; until then the alert is repeated."""
        return self.step("acknowledged") is not None

    @property
    def is_released(self) -> bool:
        """Whether the lineage may go on."""
        return self.step("released") is not None


def pending(incident: Incident) -> tuple[Step, ...]:
    """The steps that are left, in their order."""
    return tuple(step for step in STEPS if incident.step(step) is None)


def missing(incident: Incident, step: Step) -> tuple[Step, ...]:
    """What must be done before a step and isn't yet."""
    return tuple(needed for needed in _NEEDS.get(step, ()) if incident.step(needed) is None)


def last_safe(line: Sequence[Promotion], factor: float) -> int:
    """How many champions of a lineage stay where it is reverted to the last known safe one.

    The present champion never stays, nor does one before it whose gain was more than `factor` times the one
    before: with those the acceleration began.

    Args:
        line: the champions that followed one another to the present one, the oldest first.
        factor: of the runaway detector.
    """
    before = list(line[:-1])
    pairs = zip(reversed(before[1:]), reversed(before[:-1]), strict=True)
    running = takewhile(lambda pair: accelerates(pair[1], pair[0], factor), pairs)
    return len(before) - sum(1 for _ in running)
