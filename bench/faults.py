"""A sweep on three hosts while its workers' hosts are killed and cut off, beside one that nobody disturbs.

`python -m bench.faults [--trials 60] [--reports 5] [--seconds 1] [--every 20]`: the hosts are network
namespaces of this machine with a real Ray over them, the head among them. Every so many seconds one of the
other two is killed or cut off in turn; it comes back a little later. Each report is written down as it is
begun, so that what the ledger counts is held against what was really computed. The last line is JSON:
`lost` trials were not measured, `double` were measured or counted twice, `budget_exact` says whether the
ledger spent what was begun and, at the most, one more report for each lease that was lost.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.computing import BEGUN, Settings, books_of
from bench.hosts import Cluster, ClusterError, Host, cluster, network, obstacle
from bench.mishaps import cut_off

# until a host that was cut off is plugged in again: its worker is dead by then
CUT_SECONDS = 8.0
# a sweep that takes longer than this many times its trainings hangs
PATIENCE = 12


def kill(made: Cluster, host: Host) -> None:
    """Everything on the host dies at once; it is started again."""
    host.kill()
    _rejoin(made, host)


def cut(made: Cluster, host: Host) -> None:
    """Nothing reaches the host for a while; its Ray, which the others have given up, is started again."""
    with cut_off(host):
        time.sleep(CUT_SECONDS)
    host.kill()
    _rejoin(made, host)


def _rejoin(made: Cluster, host: Host) -> None:
    with suppress(subprocess.TimeoutExpired):
        made.join(host).wait(60)


FAULTS: Sequence[Callable[[Cluster, Host], None]] = (kill, cut)


def disturb(made: Cluster, driver: subprocess.Popen[bytes], every: float, within: float) -> list[str]:
    """Let one fault after the other befall the hosts in turn until the driver ends; what was done.

    Raises:
        ClusterError: the driver does not end within so many seconds.
    """
    done: list[str] = []
    turns = itertools.cycle(itertools.product(FAULTS, made.hosts[1:]))
    began = time.monotonic()
    due = began + every
    while driver.poll() is None:
        now = time.monotonic()
        if now - began > within:
            raise ClusterError(f"the sweep has not ended after {within:.0f} s: {made.logs()}")
        if now >= due:
            fault, host = next(turns)
            fault(made, host)
            done.append(f"{fault.__name__} {host.address}")
            due += every
        time.sleep(0.1)
    return done


def sweep(settings: Settings, every: float) -> dict[str, Any]:
    """Run one sweep on three hosts of its own; what it measured, what the ledger says, what was begun.

    Raises:
        ClusterError: it fails, or hangs.
    """
    with network(3) as hosts, cluster(hosts) as made:
        folder = made.folder / "sweep"
        folder.mkdir()
        settings = replace(settings, folder=str(folder), ledger=f"sqlite:///{folder}/ledger.db")
        told = folder / "settings.json"
        told.write_text(json.dumps(asdict(settings)))
        log = made.folder / "computing.out"
        words = [sys.executable, "-m", "bench.computing", str(told), made.address]
        driver = made.run(made.head, "bash", "-c", 'exec "$@" > "$0"', str(log), *words)
        within = 60 + PATIENCE * settings.trials * settings.reports * settings.seconds / settings.concurrent
        faults = disturb(made, driver, every, within)
        if driver.returncode:
            raise ClusterError(f"the driver failed: {made.logs()}")
        # Ray may have something to say of a lost host after that
        found = json.loads([line for line in log.read_text().splitlines() if line.startswith("{")][-1])
        return {**found, "faults": faults, **books_of(settings), "begun": begun_in(folder)}


def begun_in(folder: Path) -> int:
    """How many reports were begun."""
    return len((folder / BEGUN).read_text().splitlines())


def told(settings: Settings, calm: dict[str, Any], disturbed: dict[str, Any]) -> dict[str, Any]:
    """What came of it, against the sweep that nobody disturbed."""
    times = Counter(disturbed["measured"])
    again = sum(times.values()) - len(times)
    over = disturbed["spent"] - disturbed["begun"]
    return {
        "trials": settings.trials,
        "faults": len(disturbed["faults"]),
        "leases_lost": disturbed["forfeited"],
        "lost": settings.trials - len(times),
        "double": again + disturbed["trials"] - settings.trials,
        "same_trials": sorted(times) == calm["measured"],
        "budget_exact": disturbed["held"] == 0
        and disturbed["spent"] == disturbed["by_leases"]
        and 0 <= over <= disturbed["forfeited"],
        "reports": settings.trials * settings.reports,
        "begun": disturbed["begun"],
        "spent": disturbed["spent"],
        "seconds": [calm["seconds"], disturbed["seconds"]],
        "slowdown": round(disturbed["seconds"] / calm["seconds"], 2),
    }


def main() -> None:
    """Run both sweeps, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--reports", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one report")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two faults")
    asked = parser.parse_args()
    if reason := obstacle():
        parser.exit(1, f"bench.faults: needs hosts of its own: {reason}\n")
    settings = Settings(
        folder="", ledger="", trials=asked.trials, reports=asked.reports, seconds=asked.seconds, concurrent=3
    )
    calm = sweep(settings, every=float("inf"))
    print(json.dumps(calm), flush=True)
    disturbed = sweep(settings, every=asked.every)
    print(json.dumps(disturbed), flush=True)
    print(json.dumps(told(settings, calm, disturbed)))


if __name__ == "__main__":
    main()
