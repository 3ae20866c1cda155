"""How long workers live on after the kill switch is thrown, and after what may break on a cluster.

`python -m bench.kill [--repetitions N] [--lease S] [--grace S] [--local]`: sweeps of two drivers at once on
three hosts made of network namespaces. The switch is thrown in each of its ways in turn; then each fault
befalls a sweep, and nobody throws anything. Where no hosts can be made, or with `--local`, one Ray has all
workers, and there are no mishaps. A latency ends with the last worker and all that it had started. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench import mishaps
from bench.beating import Settings, ended_in, settings_in
from bench.hosts import Cluster, ClusterError, cluster, end_of_logs, network, obstacle
from bench.mishaps import Deaths, Sweeps, alive_in, deaths_in, eventually
from bench.place import Place, one_ray
from bench.ways import BY, REASON, WAYS, Way, lift
from safety import Ledger

# workers of each driver; each of three hosts has room for one
CONCURRENT = (2, 1)
# to be seen to be late, beyond lease and grace
LATE_SECONDS = 30


class Drivers:
    """Processes that run one sweep after another, at once.

    Args:
        place: where they run.
        lease: seconds, of the limits.
        grace: seconds, of the limits.
    """

    def __init__(self, place: Place, lease: int, grace: int) -> None:
        self._place, self._lease, self._grace = place, lease, grace
        self._folders = [place.folder / f"driver-{number}" for number in range(len(CONCURRENT))]
        for folder in self._folders:
            folder.mkdir()
        command = [sys.executable, "-m", "bench.beating"]
        self._processes = [place.start(*command, str(folder), place.address) for folder in self._folders]

    def killed(self, number: int, way: Way) -> Deaths:
        """Begin a sweep of each, kill them when all their workers compute, and lift the switch."""
        folder = self._place.folder / f"round-{number}"
        folder.mkdir()
        for driver, concurrent in zip(self._folders, CONCURRENT, strict=True):
            self._tell(driver, number, folder, concurrent)
        self._until(lambda: len(alive_in(folder)) == sum(CONCURRENT), "workers")
        after: list[Callable[[], object]] = []
        ledger, within = self._place.ledger, self._lease + self._grace + LATE_SECONDS
        found = deaths_in(folder, alive_in(folder), lambda: after.append(way(ledger)), within)
        after[0]()
        self._until(lambda: all(ended_in(driver, number).exists() for driver in self._folders), "the end")
        lift(ledger)
        return found

    def _tell(self, driver: Path, number: int, folder: Path, concurrent: int) -> None:
        settings = Settings(
            folder=str(folder),
            ledger=self._place.ledger_url,
            sweep=f"{folder.name}-{driver.name}",
            concurrent=concurrent,
            lease_seconds=self._lease,
            grace_seconds=self._grace,
            children=True,
        )
        told = driver / "settings"
        told.write_text(json.dumps(asdict(settings)))
        told.rename(settings_in(driver, number))

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        eventually(lambda: condition() or any(one.poll() is not None for one in self._processes), what)
        if not condition():
            raise ClusterError(f"a driver has ended: {end_of_logs(self._place.folder)}")

    def end(self) -> None:
        """Kill them, and so what they still run."""
        for process in self._processes:
            process.kill()
            process.wait()


def all_well(place: Place, repetitions: int, lease: int, grace: int) -> dict[str, list[float]]:
    """Seconds from the switch to the last death, by the way in which it was thrown."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    place.ledger.parent.mkdir()
    drivers = Drivers(place, lease, grace)
    try:
        for number in range(repetitions):
            name, way = list(WAYS.items())[number % len(WAYS)]
            seconds = drivers.killed(number, way).seconds
            found[name].append(seconds)
            print(f"{number}: {name}: {seconds:.3f} s", flush=True)
    finally:
        drivers.end()
    return found


def kill_without_gcs(sweeps: Sweeps, within: float) -> Deaths:
    """The control store is killed, and then the switch is thrown: nobody else can tell the workers."""
    run, ledger = sweeps.run(), Ledger(f"sqlite:///{sweeps.ledger}")
    run.wait_for(len(sweeps.cluster.hosts) - 1)
    mishaps.kill_gcs(sweeps.cluster)
    try:
        return mishaps.deaths(run, run.alive(), lambda: ledger.kill(REASON, BY), within)
    finally:
        ledger.close()


def stop_governor(sweeps: Sweeps, within: float) -> Deaths:
    """The governor stands still, and nobody renews a lease."""
    run = sweeps.all_beat()
    with mishaps.standing_still(sweeps.cluster.governor()):
        return mishaps.deaths(run, run.alive(), lambda: None, within)


# in this order: what comes last leaves a cluster that is of no more use
FAULTS: dict[str, Callable[[Sweeps, float], Deaths]] = {
    "driver SIGKILL": lambda sweeps, within: mishaps.kill_driver(sweeps.all_beat(), within),
    "worker SIGKILL": lambda sweeps, within: mishaps.kill_worker(
        sweeps.all_beat(), sweeps.cluster.hosts[1], within
    ),
    "worker stuck in C": lambda sweeps, within: mishaps.stick_worker(
        sweeps.all_beat(), sweeps.cluster.hosts[2], within
    ),
    "worker SIGSTOP": lambda sweeps, within: mishaps.stop_worker(
        sweeps.all_beat(), sweeps.cluster.hosts[0], within
    ),
    "raylet SIGSTOP": lambda sweeps, within: mishaps.stop_raylet(
        sweeps.all_beat(), sweeps.cluster.hosts[2], within
    ),
    "governor SIGSTOP": stop_governor,
    "raylet SIGKILL": lambda sweeps, within: mishaps.kill_raylet(
        sweeps.all_beat(), sweeps.cluster.hosts[1], within
    ),
    "GCS SIGKILL, then the switch": kill_without_gcs,
}


def each_fault(made: Cluster, ledger: Path, lease: int, grace: int) -> dict[str, float]:
    """Seconds from each fault to the last death that it must bring."""
    sweeps = Sweeps(cluster=made, ledger=ledger, lease_seconds=lease, grace_seconds=grace)
    found = {}
    for name, fault in FAULTS.items():
        found[name] = fault(sweeps, lease + grace + LATE_SECONDS).seconds
        print(f"{name}: {found[name]:.3f} s", flush=True)
    return found


def percentile(values: Iterable[float], part: float) -> float:
    """The value that so large a part of them doesn't exceed, in milliseconds' precision."""
    ordered = sorted(values)
    return round(ordered[min(int(len(ordered) * part), len(ordered) - 1)], 3)


def summary(by_way: dict[str, list[float]]) -> dict[str, object]:
    """Percentiles of all latencies, and of those of each way."""
    every = [seconds for latencies in by_way.values() for seconds in latencies]
    ways = {
        name: {"p50_s": percentile(latencies, 0.5), "worst_s": percentile(latencies, 1)}
        for name, latencies in by_way.items()
        if latencies
    }
    found: dict[str, object] = {"p50_s": percentile(every, 0.5), "p99_s": percentile(every, 0.99)}
    return {**found, "repetitions": len(every), "ways": ways}


def measured(repetitions: int, lease: int, grace: int, local: bool) -> dict[str, object]:
    """What the last line says."""
    reason = "--local" if local else obstacle()
    if reason:
        with one_ray(sum(CONCURRENT)) as place:
            found = summary(all_well(place, repetitions, lease, grace))
        return {**found, "hosts": 1, "worst_fault_s": None, "faults": {}, "no_faults": reason}
    with network(3) as hosts, cluster(hosts) as made:
        place = Place(address=made.address, folder=made.folder, start=partial(made.run, made.head))
        found = summary(all_well(place, repetitions, lease, grace))
        died = each_fault(made, place.ledger, lease, grace)
    told = {name: round(seconds, 3) for name, seconds in died.items()}
    return {**found, "hosts": 3, "worst_fault_s": max(told.values()), "faults": told}


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=50, help="of the switch, with all well")
    parser.add_argument("--lease", type=int, default=15, help="seconds, of the limits")
    parser.add_argument("--grace", type=int, default=5, help="seconds, of the limits")
    parser.add_argument("--local", action="store_true", help="one Ray, no hosts and no faults")
    options = parser.parse_args()
    if options.repetitions < 1:
        parser.error(f"--repetitions {options.repetitions}: expected at least 1")
    before = os.getloadavg()[0]
    found = measured(options.repetitions, options.lease, options.grace, options.local)
    given = {"lease_s": options.lease, "grace_s": options.grace, "drivers": len(CONCURRENT)}
    load = [round(load, 1) for load in (before, os.getloadavg()[0])]
    print(json.dumps({**found, **given, "workers": sum(CONCURRENT), "load": load}))


if __name__ == "__main__":
    main()
