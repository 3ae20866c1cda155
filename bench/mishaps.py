"""What may befall a sweep on several hosts, each fault with how long its workers lived on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.beating import ENOUGH, STICK, Settings, Worker, last_beat, workers
from bench.hosts import Cluster, ClusterError, Host, Watched, state_of

WAIT_SECONDS = 90.0


class Run:
    """A sweep of beating trials, whose driver is a process on the cluster's head.

    Args:
        cluster: that is up.
        settings: of the sweep.
    """

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.cluster, self.settings, self.folder = cluster, settings, Path(settings.folder)
        self.folder.mkdir()
        told = self.folder / "settings.json"
        told.write_text(json.dumps(asdict(settings)))
        command = [sys.executable, "-m", "bench.beating", str(told), cluster.address]
        self.driver: subprocess.Popen[bytes] = cluster.run(cluster.head, *command)

    def alive(self, host: Host | None = None) -> list[Worker]:
        """Workers that are not dead, of one host or of all; a process that is stuck or stopped isn't."""
        return [worker for worker in alive_in(self.folder) if host is None or worker.address == host.address]

    def wait_for(self, count: int = 1, host: Host | None = None) -> list[Worker]:
        """So many workers that live.

        Raises:
            ClusterError: the driver has ended, or they don't come.
        """
        try:
            eventually(lambda: len(self.alive(host)) >= count or self._ended(), f"{count} workers")
        except ClusterError as error:
            raise ClusterError(f"{error}: {self.cluster.logs()}") from None
        if self._ended():
            raise ClusterError(f"the driver has ended: {self.cluster.logs()}")
        return self.alive(host)

    def _ended(self) -> bool:
        return self.driver.poll() is not None

    def finish(self) -> None:
        """Let every trial come to its end, and the driver to its own.

        Raises:
            ClusterError: the driver fails.
        """
        (self.folder / ENOUGH).touch()
        if self.driver.wait(WAIT_SECONDS):
            raise ClusterError(f"the driver failed: {self.cluster.logs()}")


@dataclass(kw_only=True)
class Sweeps:
    """Sweeps on one cluster and ledger, each begun when the driver of the one before has ended.

    Attributes:
        cluster: that is up.
        ledger: file.
        lease_seconds: of the limits.
        grace_seconds: of the limits.
        runs: so far.
    """

    cluster: Cluster
    ledger: Path
    lease_seconds: int
    grace_seconds: int
    runs: list[Run] = field(default_factory=list)

    def run(self) -> Run:
        """The sweep that runs, or a new one."""
        if not self.runs or self.runs[-1].driver.poll() is not None:
            name = f"sweep-{len(self.runs)}"
            settings = Settings(
                folder=str(self.cluster.folder / name),
                ledger=f"sqlite:///{self.ledger}",
                sweep=name,
                lease_seconds=self.lease_seconds,
                grace_seconds=self.grace_seconds,
                retries=-1,
                children=True,
            )
            self.runs.append(Run(self.cluster, settings))
        return self.runs[-1]

    def all_beat(self) -> Run:
        """The sweep that runs, with a worker on every host."""
        run = self.run()
        run.wait_for(len(self.cluster.hosts))
        return run


def alive_in(folder: Path) -> list[Worker]:
    """Workers whose marks lie in a folder and who are not dead."""
    return [worker for worker in workers(folder) if state_of(worker.pid) not in ("Z", "X", "")]


def eventually(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until something is so.

    Raises:
        ClusterError: it doesn't come.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise ClusterError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class Deaths:
    """How long processes lived on after a fault.

    Attributes:
        workers: that had to die.
        since: when the fault was, on the machine's monotonic clock.
        seconds: until the last one of them, and of the processes that they had started, was dead.
        beat_seconds: until the last one of them computed for the last time.
    """

    workers: tuple[Worker, ...]
    since: float
    seconds: float
    beat_seconds: float


def deaths(run: Run, doomed: Iterable[Worker], fault: Callable[[], object], within: float) -> Deaths:
    """Let a fault happen, and watch workers of a sweep and their children die of it.

    Raises:
        TimeoutError: some live so many seconds later.
    """
    return deaths_in(run.folder, doomed, fault, within)


def deaths_in(folder: Path, doomed: Iterable[Worker], fault: Callable[[], object], within: float) -> Deaths:
    """The same for workers of any sweep whose marks lie in a folder."""
    doomed = tuple(doomed)
    watched = Watched(pid for worker in doomed for pid in (worker.pid, *worker.children))
    try:
        since = time.monotonic()
        fault()
        died = watched.seconds_to_death(since, within)
    finally:
        watched.close()
    beats = [last_beat(folder, worker.pid) - since for worker in doomed]
    return Deaths(workers=doomed, since=since, seconds=max(died.values()), beat_seconds=max(beats))


def kill_driver(run: Run, within: float) -> Deaths:
    """The driver is killed in the middle of its trials."""
    doomed = run.alive()

    def kill() -> None:
        run.driver.kill()
        run.driver.wait()

    return deaths(run, doomed, kill, within)


def kill_worker(run: Run, host: Host, within: float) -> Deaths:
    """A worker is killed."""
    worker = run.wait_for(1, host)[0]
    return deaths(run, [worker], lambda: os.kill(worker.pid, signal.SIGKILL), within)


def stop_worker(run: Run, host: Host, within: float) -> Deaths:
    """A worker stands still for longer than its lease, and is told to go on."""
    worker = run.wait_for(1, host)[0]
    found = deaths(run, [worker], lambda: os.kill(worker.pid, signal.SIGSTOP), within)
    with suppress(ProcessLookupError):
        os.kill(worker.pid, signal.SIGCONT)
    return found


def stick_worker(run: Run, host: Host, within: float) -> Deaths:
    """A worker waits in C code that holds the GIL, ignores every signal that it can, and is asked to end."""
    worker = run.wait_for(1, host)[0]

    def stick() -> None:
        (run.folder / f"{worker.pid}.{STICK}").touch()
        eventually(lambda: time.monotonic() - last_beat(run.folder, worker.pid) > 0.5, "a worker to be stuck")
        os.kill(worker.pid, signal.SIGTERM)

    found = deaths(run, [worker], stick, within)
    # it has been stuck since its last beat
    return Deaths(
        workers=found.workers,
        since=found.since + found.beat_seconds,
        seconds=found.seconds - found.beat_seconds,
        beat_seconds=0.0,
    )


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Within, a process is stopped."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def stop_raylet(run: Run, host: Host, within: float) -> Deaths:
    """What could end a host's workers stands still, until they are dead."""
    doomed = run.wait_for(1, host)
    raylet = run.cluster.raylet(host)
    try:
        return deaths(run, doomed, lambda: os.kill(raylet, signal.SIGSTOP), within)
    finally:
        os.kill(raylet, signal.SIGCONT)


def kill_raylet(run: Run, host: Host, within: float) -> Deaths:
    """What could end a host's workers is killed."""
    doomed = run.wait_for(1, host)
    raylet = run.cluster.raylet(host)
    return deaths(run, doomed, lambda: os.kill(raylet, signal.SIGKILL), within)


def kill_gcs(cluster: Cluster) -> None:
    """The cluster's control store is killed. What runs goes on for a while: nobody is told."""
    os.kill(cluster.gcs(), signal.SIGKILL)


@contextmanager
def cut_off(host: Host) -> Iterator[None]:
    """Within, nothing reaches a host or leaves it."""
    host.cut()
    try:
        yield
    finally:
        host.join()
