"""Rehearsed failures: seeds of every scenario, on all cores, with every invariant checked after every event.

`python -m bench.simulate [--seeds N] [--events N] [--full]`; 1,001 seeds, 100,009 with `--full`. It ends with
1 where an invariant did not hold, and names the seed. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from safety.simulation import SCENARIOS, Plan, rehearse

SEEDS, FULL = 1_000, 100_000
EVENTS = 80


def plans(seeds: int, events: int) -> Iterator[Plan]:
    """At least so many, as many of each scenario."""
    for seed in range(-(-seeds // len(SCENARIOS))):
        for scenario in SCENARIOS:
            yield Plan(scenario=scenario, seed=seed, workers=2 + seed % 7, events=events)


def found(plan: Plan) -> tuple[int, str]:
    """Events of a rehearsal, and which invariant did not hold."""
    outcome = rehearse(plan)
    return outcome.events, outcome.told if outcome.violation else ""


def main() -> None:
    """Rehearse them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} seeds")
    parser.add_argument("--seeds", type=int, help=f"{SEEDS:,} if left out")
    parser.add_argument("--events", type=int, default=EVENTS, help="of each seed")
    given = parser.parse_args()
    wanted = list(plans(given.seeds or (FULL if given.full else SEEDS), given.events))
    began, events, violations = time.monotonic(), 0, 0
    # a process forgets what its libraries keep of ledgers that are closed
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), maxtasksperchild=2_000) as pool:
        for number, violation in pool.imap_unordered(found, wanted, chunksize=8):
            events += number
            if violation:
                violations += 1
                print(violation)
    rate = events / (time.monotonic() - began)
    row = {"seeds": len(wanted), "events": events, "events_per_s": round(rate), "violations": violations}
    print(json.dumps(row))
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
