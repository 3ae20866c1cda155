"""Metrics of a ledger: their names, and their values at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from safety.budgets import Budget
from safety.drills import Drill
from safety.history import CEILINGS, REFUSALS
from safety.observed import ADMISSION, Observed, Tally
from safety.overview import Overview, RunningSweep
from safety.report import share

# sweeps, and lineages, that have curves of their own: those nearest to a ceiling
MOST_SWEEPS = 100
# rules that do; a rule of an operator is any text
MOST_RULES = 100
OTHER = "other"
_STATES = ("open", "frozen", "killed", "closed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """What a name stands for.

    Attributes:
        text: for people.
        labels: that each of its values has.
        kind: a counter only rises.
    """

    text: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A finite value of a metric, by its labels."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


_BUDGET = ("scope", "resource")
# without the prefix `ray_` that Ray exports them with, and the `_total` that it adds to a counter
METRICS = {
    "rsi_governor_alive_timestamp_seconds": Metric(text="Unix time when the governor last took calls"),
    "rsi_killed": Metric(text="1 while the kill switch is thrown"),
    "rsi_sweeps": Metric(text="sweeps of the ledger", labels=("state",)),
    "rsi_leases": Metric(text="open leases of a sweep that is not closed", labels=("sweep", "state")),
    "rsi_admissions": Metric(text="trials that were admitted, since the ledger began", kind="counter"),
    "rsi_refusals": Metric(
        text="denials, holds and incidents in the audit, since the ledger began",
        labels=("kind", "rule"),
        kind="counter",
    ),
    "rsi_budget_spent": Metric(text="used for good, in the unit of the resource", labels=_BUDGET),
    "rsi_budget_held": Metric(text="promised to trials that are open", labels=_BUDGET),
    "rsi_budget_overrun": Metric(text="used beyond what was held", labels=_BUDGET),
    "rsi_budget_cap": Metric(text="the most that may be spent and held", labels=_BUDGET),
    "rsi_budget_share": Metric(text="part of the cap that is spent or held, 0 to 1", labels=_BUDGET),
    "rsi_ceiling_share": Metric(
        text="part of a candidate's ceiling that the largest open trial claims, or that a capability has "
        "reached in any report",
        labels=("sweep", "ceiling"),
    ),
    "rsi_improvement_rate": Metric(
        text="relative improvement of a lineage within the window of its limits", labels=("lineage",)
    ),
    "rsi_improvement_ceiling": Metric(text="max_improvement_rate of those limits", labels=("lineage",)),
    "rsi_improvement_undefined": Metric(
        text="1 where an improvement within the window is no number", labels=("lineage",)
    ),
    "rsi_incidents_standing": Metric(text="emergency shutdowns that nobody has released"),
    "rsi_incidents_unacknowledged": Metric(text="emergency shutdowns that nobody has acknowledged"),
    "rsi_drill_passed": Metric(text="1 where the last kill drill reached its target, else 0"),
    "rsi_drill_latency_seconds": Metric(
        text="from the switch to the last death in the last kill drill; absent where a canary outlived it"
    ),
    "rsi_drill_target_seconds": Metric(text="the most that it may take"),
    "rsi_drill_timestamp_seconds": Metric(text="Unix time of the last kill drill"),
}


def samples(found: Observed) -> list[Sample]:
    """The values of `METRICS` at one moment; a sweep that is closed has none any more."""
    return [*_of_ledger(found), *_of_tally(found.tally), *_of_sweeps(found), *_of_lineages(found)]


def _of_ledger(found: Observed) -> Iterator[Sample]:
    ledger = found.overview
    yield Sample(name="rsi_governor_alive_timestamp_seconds", value=found.alive_ms / 1000)
    yield Sample(name="rsi_killed", value=float(ledger.killed is not None))
    for state, count in _states(ledger).items():
        yield Sample(name="rsi_sweeps", value=count, labels={"state": state})
    yield Sample(name="rsi_incidents_standing", value=len(ledger.incidents))
    open_ones = sum(not incident.is_acknowledged for incident in ledger.incidents)
    yield Sample(name="rsi_incidents_unacknowledged", value=open_ones)
    yield from _of_budgets(ledger.budgets)
    if ledger.drill:
        yield from _of_drill(ledger.drill, found.tally.of_drill(ledger.drill))


def _states(ledger: Overview) -> dict[str, int]:
    found = Counter(running.sweep.state for running in ledger.sweeps)
    return {state: ledger.closed if state == "closed" else found[state] for state in _STATES}


def _of_drill(drill: Drill, latencies: Sequence[int | None]) -> Iterator[Sample]:
    yield Sample(name="rsi_drill_passed", value=float(not drill.missed))
    yield Sample(name="rsi_drill_target_seconds", value=drill.target_ms / 1000)
    yield Sample(name="rsi_drill_timestamp_seconds", value=drill.at_ms / 1000)
    known = [latency for latency in latencies if latency is not None]
    if known and len(known) == len(latencies):
        yield Sample(name="rsi_drill_latency_seconds", value=max(known) / 1000)


def _of_tally(tally: Tally) -> Iterator[Sample]:
    yield Sample(name="rsi_admissions", value=tally.rows.get((ADMISSION, ""), 0))
    refused = {place: count for place, count in tally.rows.items() if place[0] in REFUSALS}
    # the first ones stay by themselves: what a counter has told is not taken back
    named = [*refused][:MOST_RULES]
    for kind, rule in named:
        labels = {"kind": kind, "rule": rule}
        yield Sample(name="rsi_refusals", value=refused[kind, rule], labels=labels)
    others = sum(count for place, count in refused.items() if place not in named)
    if others:
        yield Sample(name="rsi_refusals", value=others, labels={"kind": OTHER, "rule": OTHER})


def _of_budgets(budgets: Sequence[Budget]) -> Iterator[Sample]:
    for budget in budgets:
        labels = {"scope": budget.scope, "resource": budget.resource}
        yield Sample(name="rsi_budget_spent", value=budget.spent, labels=labels)
        yield Sample(name="rsi_budget_held", value=budget.held, labels=labels)
        yield Sample(name="rsi_budget_overrun", value=budget.overrun, labels=labels)
        if budget.limited:
            yield Sample(name="rsi_budget_cap", value=budget.target, labels=labels)
            yield Sample(name="rsi_budget_share", value=budget.share, labels=labels)


def _of_sweeps(found: Observed) -> Iterator[Sample]:
    shares = [(running, _shares(running)) for running in found.overview.sweeps]
    nearest = sorted(shares, key=lambda one: max(one[1].values()), reverse=True)
    for running, by_ceiling in nearest[:MOST_SWEEPS]:
        name = running.sweep.name
        for ceiling, part in by_ceiling.items():
            labels = {"sweep": name, "ceiling": ceiling}
            yield Sample(name="rsi_ceiling_share", value=part, labels=labels)
        for state, count in Counter(lease.state for lease in running.leases).items():
            yield Sample(name="rsi_leases", value=count, labels={"sweep": name, "state": state})
        yield from _of_budgets(running.budgets)


def _shares(running: RunningSweep) -> dict[str, float]:
    """How near what runs in a sweep is to each ceiling."""
    bounds, claims = running.sweep.limits.bounds, [lease.claim for lease in running.leases]
    found = {
        ceiling: share(max((getattr(claim, amount) for claim in claims), default=0), limit)
        for ceiling, amount in CEILINGS.items()
        if (limit := getattr(bounds, ceiling)) is not None
    }
    return found | {
        f"max_performance.{domain}": share(score, bounds.max_performance[domain])
        for domain, score in running.highest.items()
        if domain in bounds.max_performance
    }


def _of_lineages(found: Observed) -> Iterator[Sample]:
    nearest = sorted(found.improvements, key=lambda one: one.share, reverse=True)
    for one in nearest[:MOST_SWEEPS]:
        labels = {"lineage": one.lineage}
        yield Sample(name="rsi_improvement_ceiling", value=one.ceiling, labels=labels)
        yield Sample(name="rsi_improvement_undefined", value=float(not one.is_number), labels=labels)
        if one.rate is not None and one.is_number:
            yield Sample(name="rsi_improvement_rate", value=one.rate, labels=labels)
