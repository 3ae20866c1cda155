"""Many drivers that race for the last percent of a cluster's budget, through the one governor.

`python -m bench.drivers [--drivers N]`: each is a process with a sweep of its own that asks for claims, uses
up what is granted, and asks again until it is denied; meanwhile the ledger is looked at. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from bench.asking import GO, Asked, Settings, limits, wish
from bench.hosts import ClusterError, end_of_logs
from bench.mishaps import eventually
from bench.place import Place, one_ray
from safety import Budget, Ledger, Usage, budgets, leases, snapshot
from safety.actor import connect

READY_SECONDS, RACE_SECONDS = 400.0, 200.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Race:
    """What is raced for.

    Attributes:
        drivers: processes.
        cap: GFLOP of the cluster's budget, of which 1% is left.
        least: GFLOP of the smallest claim.
        most: GFLOP of the largest one.
    """

    drivers: int
    cap: int
    least: int
    most: int

    @property
    def spent_before(self) -> int:
        """GFLOP that are gone when the race begins."""
        return self.cap - self.cap // 100


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a race ended.

    Attributes:
        asked: by each driver.
        seconds: from the start to the last denial.
        looks: at the ledger meanwhile.
        violations: of I1 and I2, at any look and at the end.
    """

    asked: tuple[Asked, ...]
    seconds: float
    looks: int
    violations: tuple[str, ...]


def run_race(place: Place, race: Race) -> Outcome:
    """Start the drivers, let all go at once, and look at the ledger until each was denied.

    Raises:
        ClusterError: a driver fails.
    """
    place.ledger.parent.mkdir()
    spend(place, race)
    sweeps = [f"driver-{number}" for number in range(race.drivers)]
    processes = [_driver(place, race, sweep) for sweep in sweeps]
    ledger = Ledger(place.ledger_url)
    try:
        ready = [place.folder / f"{sweep}.ready" for sweep in sweeps]
        eventually(lambda: all(one.exists() for one in ready) or _failed(processes), "drivers", READY_SECONDS)
        began = time.monotonic()
        (place.folder / GO).touch()
        found = list(_looks(ledger, processes, began))
        seconds = time.monotonic() - began
        if _failed(processes):
            raise ClusterError(f"a driver failed: {end_of_logs(place.folder)}")
        found.append(violations(ledger))
    finally:
        for process in processes:
            process.kill()
            process.wait()
        ledger.close()
    asked = [Asked(**json.loads((place.folder / f"{sweep}.asked").read_text())) for sweep in sweeps]
    return Outcome(
        asked=tuple(asked),
        seconds=seconds,
        looks=len(found),
        violations=tuple(told for look in found for told in look),
    )


def spend(place: Place, race: Race) -> None:
    """A sweep before the race uses up all of the budget but its last percent."""
    governor, request = connect(place.ledger_url), wish("before", 1, race.spent_before)
    governor.open_sweep(request.sweep, limits(race.cap))
    governor.admit(request)
    grant = governor.activate(request.key, request.digest, "before", None)
    governor.settle(grant.lease, grant.fence, Usage(train_flops=request.claim.train_flops, reports=1))
    governor.close_sweep(request.sweep, {})


def _driver(place: Place, race: Race, sweep: str) -> subprocess.Popen[bytes]:
    settings = Settings(
        folder=str(place.folder),
        address=place.address,
        ledger=place.ledger_url,
        sweep=sweep,
        cap=race.cap,
        least=race.least,
        most=race.most,
    )
    told = place.folder / f"{sweep}.json"
    told.write_text(json.dumps(asdict(settings)))
    return place.start(sys.executable, "-m", "bench.asking", str(told))


def _failed(processes: Sequence[subprocess.Popen[bytes]]) -> bool:
    return any(process.poll() not in (None, 0) for process in processes)


def _looks(ledger: Ledger, processes: Sequence[subprocess.Popen[bytes]], began: float) -> Iterator[list[str]]:
    """What is violated at one moment after another, until no driver asks any more."""
    while any(process.poll() is None for process in processes):
        if time.monotonic() > began + RACE_SECONDS:
            raise ClusterError(f"the drivers still ask after {RACE_SECONDS:.0f} s")
        yield violations(ledger)
        time.sleep(LOOK_SECONDS)


def violations(ledger: Ledger) -> list[str]:
    """Where, in one state of a ledger, a budget is over its cap, or isn't what its leases say."""
    with ledger.reading() as connection:
        seen, open_ones = snapshot.take(connection), leases.open_ones(connection)
    held: Counter[tuple[str, str]] = Counter()
    for lease in open_ones:
        for scope in budgets.scopes(lease.sweep):
            held.update({(scope, resource): amount for resource, amount in lease.charges().items()})
    return [told for budget in seen.budgets for told in _violated(budget, held, seen.used)]


def _violated(budget: Budget, held: Mapping[tuple[str, str], int], used: Mapping[str, int]) -> Iterator[str]:
    name, wanted = f"{budget.scope} {budget.resource}", held[budget.scope, budget.resource]
    if budget.spent + budget.held > budget.target:
        yield f"I1: {name}: spent {budget.spent:,}, held {budget.held:,}, cap {budget.target:,}"
    if budget.held != wanted:
        yield f"I2: {name}: held {budget.held:,}, its open leases {wanted:,}"
    if budget.scope == budgets.CLUSTER and budget.spent != used.get(budget.resource, 0):
        yield f"I2: {name}: spent {budget.spent:,}, leases that ended {used.get(budget.resource, 0):,}"


def summary(race: Race, outcome: Outcome) -> dict[str, object]:
    """What the last line says; GFLOP."""
    asked = outcome.asked
    return {
        "drivers": race.drivers,
        "cap": race.cap,
        "spent_before": race.spent_before,
        "granted": sum(one.gflop for one in asked),
        "claims": sum(one.claims for one in asked),
        "drivers_with_claims": sum(one.claims > 0 for one in asked),
        "denied": sum(one.rule == "budget.train_gflop" for one in asked),
        "held_answers": sum(one.holds for one in asked),
        "silences": sum(one.silences for one in asked),
        "seconds": round(outcome.seconds, 2),
        "looks": outcome.looks,
        "violations": list(outcome.violations),
    }


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drivers", type=int, default=50, help="processes; each takes 150 MB of memory")
    parser.add_argument("--cap", type=int, default=1_000_000, help="GFLOP, of which 1%% is left")
    options = parser.parse_args()
    if options.drivers < 1:
        parser.error(f"--drivers {options.drivers}: expected at least 1")
    race = Race(drivers=options.drivers, cap=options.cap, least=1, most=20)
    with one_ray(cpus=1) as place:
        outcome = run_race(place, race)
    print(json.dumps({**summary(race, outcome), "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main()
