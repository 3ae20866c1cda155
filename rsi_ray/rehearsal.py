"""The command that rehearses failures: the real ledger and rules under a simulated cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from rsi_ray.errors import RunError
from safety.simulation import SCENARIOS, Outcome, Plan, rehearse

FAILURE = 1
# what becomes of leases, in its order; other counts are of what went wrong
_LEASES = {
    "reserved": "admitted",
    "active": "begun",
    "settled": "settled",
    "forfeited": "forfeited",
    "revoked": "revoked",
    "void": "void",
}
_REFUSED = ("Deny by ", "Hold by ")


def simulate(
    scenario: Annotated[
        str | None, typer.Option(help=f"one of {', '.join(SCENARIOS)}; all of them if left out")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="the first one; it decides all that happens")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="how many, one after another")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="processes that train, over all sweeps")] = 8,
    sweeps: Annotated[int, typer.Option(min=1, help="sweeps that share the ledger, each with a driver")] = 2,
    events: Annotated[int, typer.Option(min=1, help="of each seed")] = 150,
) -> None:
    """Rehearse failures on a simulated cluster: 0 where every invariant held, 1 and the one that did not."""
    if scenario is not None and scenario not in SCENARIOS:
        raise RunError(f"scenario {scenario}: expected one of {', '.join(SCENARIOS)}")
    plans = [
        Plan(scenario=name, seed=number, workers=workers, sweeps=sweeps, events=events)
        for name in ([scenario] if scenario else SCENARIOS)
        for number in range(seed, seed + seeds)
    ]
    began, outcomes = time.monotonic(), []
    for plan in plans:
        outcome = rehearse(plan)
        outcomes.append(outcome)
        if outcome.violation:
            typer.echo(outcome.told)
            raise typer.Exit(FAILURE)
    for line in summary(outcomes, time.monotonic() - began):
        typer.echo(line)


def summary(outcomes: Sequence[Outcome], seconds: float) -> Iterator[str]:
    """What happened in rehearsals that took so long, line by line."""
    events, tally = sum(outcome.events for outcome in outcomes), Counter[str]()
    for outcome in outcomes:
        tally += outcome.tally
    simulated = sum(outcome.simulated_ms for outcome in outcomes) // 1000
    yield (
        f"{len(outcomes)} rehearsals, {events:,} events, {events / seconds:,.0f} events/s; "
        f"{simulated:,} s simulated in {seconds:,.0f} s"
    )
    yield "Leases: " + ", ".join(f"{tally[state]:,} {name}" for state, name in _LEASES.items())
    refused = {rule: count for name, count in tally.items() if (rule := _rule(name))}
    yield "Refused: " + _counts(refused)
    yield "Befell: " + _counts({n: c for n, c in tally.items() if n not in _LEASES and not _rule(n)})
    yield "Violations: 0"


def _rule(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in _REFUSED if name.startswith(prefix)), "")


def _counts(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered) or "nothing"
