"""What the rows of an audit say when they are read from the first to the last."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from safety import audit
from safety.audit import Entry, Row
from safety.budgets import scopes
from safety.claim import CONCURRENT_PARAMS, GPU_MS, TRAIN_GFLOP, WALL_MS, Claim
from safety.lease import less

# incidents that are kept one by one, the latest; all of them are counted
MOST_INCIDENTS = 1_000
# amounts that the rows tell whole; of a trial that is tried again only the ledger knows whether it counts
TOLD = (TRAIN_GFLOP, CONCURRENT_PARAMS, GPU_MS, WALL_MS)
# ceilings of one candidate in the limits, by the amount of a claim
CEILINGS = {
    "max_params": "params",
    "max_flops": "forward_flops",
    "max_memory": "memory_bytes",
    "max_train_flops": "lineage_flops",
}
REFUSALS = ("deny", "hold", "incident")
INCIDENTS = ("incident", "forfeit", "freeze", "kill", "shut_down")
ENDINGS = ("settle", "forfeit", "void")
# rows that are listed, and in which lists
_LISTED = {
    **dict.fromkeys(INCIDENTS, ("incidents",)),
    **dict.fromkeys(("ask", "approve", "reject", "loosen", "acknowledge", "release"), ("approvals",)),
    "kill": ("incidents", "switch"),
    "unkill": ("approvals", "switch"),
    "drill": ("drills",),
    "promote": ("promotions",),
    "rollback": ("promotions",),
}
_READ = {"reserve", "open_sweep", *ENDINGS, *REFUSALS, *_LISTED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A row as a report lists it."""

    seq: int
    at_ms: int
    kind: str
    sweep: str
    key: str
    rule: str
    detail: Mapping[str, Any]


@dataclass(kw_only=True, slots=True)
class Refusals:
    """How often one rule decided; times are Unix time in milliseconds."""

    first_ms: int
    last_ms: int = 0
    count: int = 0
    reason: str = ""


@dataclass(kw_only=True, slots=True)
class SweepHistory:
    """What became of a sweep.

    Attributes:
        opened: the rows that bound it to limits: the first time, and each time that it was resumed.
        kinds: number of its rows, by kind.
        used: what its leases used, by resource.
        largest: the largest amount of a claim that was admitted, by its name.
    """

    opened: list[Event] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    largest: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The audit's rows, added up.

    Attributes:
        kinds: number of rows by kind.
        sweeps: by name, in the order in which they came.
        used: what all leases used, by resource.
        out: spent and held now, by scope and resource, counted from the rows.
        peaks: the most that was spent and held at once.
        refusals: by kind and rule.
        incidents: the latest ones.
        approvals: decisions of people.
        drills: drills of the kill switch.
        promotions: champions that took another's place.
        switch: when the kill switch was thrown and lifted.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    sweeps: dict[str, SweepHistory] = field(default_factory=lambda: defaultdict(SweepHistory))
    used: Counter[str] = field(default_factory=Counter)
    out: Counter[tuple[str, str]] = field(default_factory=Counter)
    peaks: dict[tuple[str, str], int] = field(default_factory=dict)
    refusals: dict[tuple[str, str], Refusals] = field(default_factory=dict)
    incidents: deque[Event] = field(default_factory=lambda: deque(maxlen=MOST_INCIDENTS))
    approvals: list[Event] = field(default_factory=list)
    drills: list[Event] = field(default_factory=list)
    promotions: list[Event] = field(default_factory=list)
    switch: list[Event] = field(default_factory=list)
    # what each lease that is open holds
    held: dict[str, Mapping[str, int]] = field(default_factory=dict)


def history(rows: Iterable[Row]) -> History:
    """Add up the rows of an audit; they may be a stream, and may have been tampered with."""
    told = History()
    for seq, entry, _ in rows:
        _count(told, seq, entry)
    return told


def _count(told: History, seq: int, entry: Entry) -> None:
    told.kinds[entry.kind] += 1
    if entry.sweep:
        told.sweeps[entry.sweep].kinds[entry.kind] += 1
    if entry.kind not in _READ:
        return
    detail = audit.told(entry)
    if entry.kind == "reserve":
        _hold(told, entry, detail)
    elif entry.kind in ENDINGS:
        _release(told, entry, detail)
    if entry.kind in REFUSALS:
        _refuse(told, entry, detail)
    for name in _LISTED.get(entry.kind, ()):
        getattr(told, name).append(_event(seq, entry, detail))
    if entry.kind == "open_sweep" and entry.sweep:
        told.sweeps[entry.sweep].opened.append(_event(seq, entry, detail))


def _event(seq: int, entry: Entry, detail: Mapping[str, Any]) -> Event:
    return Event(
        seq=seq,
        at_ms=entry.at_ms,
        kind=entry.kind,
        sweep=entry.sweep,
        key=entry.key,
        rule=entry.rule,
        detail=detail,
    )


def _hold(told: History, entry: Entry, detail: Mapping[str, Any]) -> None:
    try:
        claim = Claim(**detail["claim"])
        held = less(claim.charges(), detail.get("credit", {}))
    except (KeyError, TypeError, ValueError, AttributeError):  # not what the ledger wrote
        return
    told.held[entry.key] = {name: amount for name, amount in held.items() if name in TOLD}
    for place, amount in _places(entry, told.held[entry.key]):
        told.out[place] += amount
        told.peaks[place] = max(told.peaks.get(place, 0), told.out[place])
    largest = told.sweeps[entry.sweep].largest
    for name in CEILINGS.values():
        largest[name] = max(largest.get(name, 0), getattr(claim, name))


def _release(told: History, entry: Entry, detail: Mapping[str, Any]) -> None:
    told_used = detail.get("used")
    amounts = told_used if isinstance(told_used, dict) else {}
    used = {name: amounts[name] for name in TOLD if type(amounts.get(name)) is int}
    for name, amount in used.items():
        told.used[name] += amount
        told.sweeps[entry.sweep].used[name] += amount
    for place, amount in _places(entry, told.held.pop(entry.key, {})):
        # what is used over the hold is no part of the budget's sums
        told.out[place] -= amount - min(amount, used.get(place[1], 0))


def _places(entry: Entry, amounts: Mapping[str, int]) -> list[tuple[tuple[str, str], int]]:
    """Amounts with the budgets that they count in."""
    return [((scope, name), amount) for scope in scopes(entry.sweep) for name, amount in amounts.items()]


def _refuse(told: History, entry: Entry, detail: Mapping[str, Any]) -> None:
    rule = entry.rule or ("overrun" if "overrun" in detail else "")
    found = told.refusals.setdefault((entry.kind, rule), Refusals(first_ms=entry.at_ms))
    found.count += 1
    found.last_ms = entry.at_ms
    found.reason = str(detail.get("reason", ""))
