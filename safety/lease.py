"""What a lease is: the right to compute, for a while, up to a claim."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from safety.claim import TRIALS, Claim, Usage

OPEN_STATES = ("reserved", "active", "revoked")
# how many reports were heard, beside what they told
REPORTS = "heard"
# rule of a trial that failed by itself: no refusal, it may be tried again
FAILED = "failed"
# of a trial whose lease ended through no fault of its own: it may be tried again too
LOST = "lease"
# why a trial failed whose process is gone
DIED = "its worker died: past its lease, out of memory, or killed"
# and of one whose time was over
OVERTIME = "its worker died: past its time limit"
# by the switch that stops every sweep
KILLED = "killed"
FROZEN = "frozen"
# states of a sweep that refuse whatever comes: they say nothing of the trial
NOT_OPEN = (FROZEN, KILLED, "closed")


def is_lasting(rule: str) -> bool:
    """Whether a refusal binds its trial for good: the sweep may be opened again, a budget have room again."""
    return rule not in NOT_OPEN and not rule.startswith("budget.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A trial's wish to run.

    Attributes:
        key: idempotency key; the same key with another digest is an error.
        digest: digest of exactly what would be run.
        sweep: the sweep that it belongs to, whose limits bind it.
        claim: what it would take.
    """

    key: str
    digest: str
    sweep: str
    claim: Claim


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A row of the ledger: one attempt at a trial.

    Attributes:
        key: of this attempt: the trial's own, then `key#2`, `key#3`.
        trial: key of the trial.
        trials: whether it counts as a trial: 1, or 0 where an earlier attempt does.
        credit: amounts, as JSON, that forfeited attempts were charged beyond what they can have computed: it
            holds and is charged so much less. Once it is over, what is left of that for the next one.
        told: the most that its reports have told of its use, and how many were heard, as JSON; "" before
            the first one.
        used: what it was charged in the end, by resource, as JSON; "" while it is open.
    """

    id: int
    key: str
    trial: str
    digest: str
    sweep: str
    claim: Claim
    state: str
    fence: int
    holder: str
    deadline_ms: int
    began_ms: int
    boot: str
    rule: str
    reason: str
    trials: int
    credit: str
    told: str
    used: str

    @property
    def heard(self) -> Usage:
        """What its reports have told, at the least; each counts, whatever it told."""
        told = json.loads(self.told or "{}")
        counted = self.claim.counted(told.pop(REPORTS, 0))
        return Usage(**told).at_least(Usage(reports=counted))

    @property
    def paid(self) -> Counter[str]:
        """What is charged already of what it uses, by resource."""
        return Counter(json.loads(self.credit or "{}"))

    def charges(self) -> dict[str, int]:
        """Amount that it holds of each resource while it is open."""
        return less({**self.claim.charges(), TRIALS: self.trials}, self.paid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """An active lease, as its worker holds it.

    Attributes:
        lease: its number.
        fence: to be shown with every renewal and at the end.
        ttl_ms: how long the worker may compute, counted from before it asked.
        claim: what was reserved.
    """

    lease: int
    fence: int
    ttl_ms: int
    claim: Claim

    def used(self, *, reports: int, elapsed_ms: int) -> Usage:
        """What was used after so many reports under this lease.

        Past the claim's time nothing was computed: the keeper ended the process, or refused.
        """
        elapsed_ms = min(elapsed_ms, self.claim.wall_ms)
        return self.claim.used(reports=self.claim.counted(reports), elapsed_ms=elapsed_ms)

    def next_report(self, made: int) -> int:
        """The report under way, which counts; none is after the last one that was declared."""
        return max(made, min(made + 1, self.claim.reports))


def less(amounts: Mapping[str, int], paid: Mapping[str, int]) -> dict[str, int]:
    """Amounts without what is paid of them already, by resource."""
    return {name: max(0, amount - paid.get(name, 0)) for name, amount in amounts.items()}


def object_digest(config: Mapping[str, object]) -> str:
    """`request_digest` of a configuration that may hold Python objects, the same in every process.

    A number of numpy's counts as its value, a class or function as its name, a partial as what it calls
    and with what. Any other object counts by what it says of itself, or else as its type alone.
    """
    return _digest(_plain(config))


def _plain(value: object) -> object:
    """A value as JSON can tell it."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float {float(value)}"
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        # their order is another one in each process
        return sorted((_plain(item) for item in value), key=json.dumps)
    if isinstance(value, partial):
        return ["partial", *map(_plain, (value.func, value.args, value.keywords))]
    as_list = getattr(value, "tolist", None)
    return _plain(as_list()) if callable(as_list) and not isinstance(value, type) else _told(value)


def _told(value: object) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    name = f"{getattr(named, '__module__', '')}:{getattr(named, '__qualname__', '')}"
    says = named is not value and type(value).__repr__ is not object.__repr__
    text = repr(value) if says else ""
    return f"{name} {text}" if " at 0x" not in text else name


def request_digest(config: Mapping[str, object]) -> str:
    """SHA-256 of a trial's configuration in canonical JSON: what was reserved is what may run.

    Raises:
        ValueError: the configuration holds something that JSON can't tell.
    """
    return _digest(config)


def _digest(config: object) -> str:
    try:
        text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except TypeError as error:
        raise ValueError(f"configuration: expected plain JSON values ({error})") from None
    return hashlib.sha256(text.encode()).hexdigest()
