"""Several hosts on one machine: network namespaces joined by a switch, and a real Ray cluster over them."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# nothing routes to it: the switch has no address, so any number of these networks may stand side by side
SUBNET = "10.77.0"
PORT = 6379
START_SECONDS = 60
OBJECT_STORE_BYTES = 80_000_000


class ClusterError(Exception):
    """A host can't be made, or a process of the cluster isn't there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A network namespace with an address of its own.

    Attributes:
        space: the namespace's name.
        switch: the namespace of the switch.
        cable: the switch's end of this host's cable.
        address: IPv4.
    """

    space: str
    switch: str
    cable: str
    address: str

    def cut(self) -> None:
        """Nothing reaches this host, or leaves it."""
        _ip("-n", self.switch, "link", "set", self.cable, "down")

    def join(self) -> None:
        """Plug the cable in again."""
        _ip("-n", self.switch, "link", "set", self.cable, "up")

    def pids(self) -> list[int]:
        """Every process of this host that is not dead."""
        pids = map(int, _ip("netns", "pids", self.space).split())
        # of a zombie there is nothing to kill: its parent has not looked yet
        return [pid for pid in pids if state_of(pid) not in ("Z", "X", "")]

    def pid_of(self, title: str) -> int:
        """The process whose title begins so.

        Raises:
            ClusterError: there is none.
        """
        for pid in self.pids():
            if _title(pid).startswith(title):
                return pid
        raise ClusterError(f"{self.space}: no process is called {title}")

    def kill(self) -> None:
        """Everything on this host is killed at once.

        Raises:
            ClusterError: something lives on.
        """
        until = time.monotonic() + START_SECONDS
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > until:
                raise ClusterError(f"{self.space}: {pids} can't be killed")
            time.sleep(0.02)


def state_of(pid: int) -> str:
    """The kernel's letter for a process: R, S, T, Z, ...; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _title(pid: int) -> str:
    """The name of a program, or what a process calls itself."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return Path(words[0]).name if len(words) > 1 else words[0]


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def obstacle() -> str:
    """Why hosts can't be made here; "" where they can."""
    if shutil.which("ip") is None:
        return "the command ip is missing (Debian: apt-get install iproute2)"
    try:
        with network(1):
            return ""
    except ClusterError as error:
        return f"network namespaces may not be made: {error}"


@contextmanager
def network(count: int = 3) -> Iterator[list[Host]]:
    """So many hosts that reach one another and nothing else; every process in them is killed at the end."""
    run = f"r{secrets.token_hex(4)}"
    switch = f"{run}s"
    with ExitStack() as stack:
        _make_space(stack, switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        yield [_host(stack, switch, f"{run}{'abcdefgh'[i]}", i) for i in range(count)]


def _make_space(stack: ExitStack, space: str) -> None:
    _ip("netns", "add", space)
    stack.callback(_ip, "netns", "del", space)
    _ip("-n", space, "link", "set", "lo", "up")


def _host(stack: ExitStack, switch: str, space: str, number: int) -> Host:
    cable, address = f"v{number}", f"{SUBNET}.{11 + number}"
    _make_space(stack, space)
    _ip("-n", switch, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("-n", switch, "link", "set", cable, "master", "bridge", "up")
    _ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
    _ip("-n", space, "link", "set", "eth0", "up")
    host = Host(space=space, switch=switch, cable=cable, address=address)
    stack.callback(host.kill)
    return host


class Cluster:
    """A real Ray over hosts; the first one is the head. Each has room for one trial.

    Args:
        hosts: of a network.
        folder: Ray's own files, and logs; its path is short, since sockets lie in it.
        environment: for every process besides this one's.
        dashboard: whether the head has one, for itself alone.
    """

    def __init__(
        self,
        hosts: list[Host],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        dashboard: bool = False,
    ) -> None:
        self.hosts, self.folder, self._dashboard = hosts, folder, dashboard
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {
            **own,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            **(environment or {}),
        }

    @property
    def head(self) -> Host:
        """Where the governor and its ledger are."""
        return self.hosts[0]

    @property
    def address(self) -> str:
        """Where drivers and hosts join."""
        return f"{self.head.address}:{PORT}"

    def start(self) -> None:
        """Start Ray on every host.

        Raises:
            ClusterError: it doesn't come up.
        """
        dashboard = f"--include-dashboard={str(self._dashboard).lower()}"
        self._finish([self._ray(self.head, "--head", f"--port={PORT}", dashboard)])
        self._finish([self.join(host) for host in self.hosts[1:]])

    def join(self, host: Host) -> subprocess.Popen[bytes]:
        """Let a host join the head's cluster, for the first time or again."""
        return self._ray(host, f"--address={self.address}")

    def _ray(self, host: Host, *words: str) -> subprocess.Popen[bytes]:
        sizes = ["--num-cpus=1", "--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        sizes += [f"--temp-dir={self.folder}/{host.cable}"]
        address = f"--node-ip-address={host.address}"
        start = ["-m", "ray.scripts.scripts", "start", address]
        return self.run(host, sys.executable, *start, *sizes, *words)

    def _finish(self, started: list[subprocess.Popen[bytes]]) -> None:
        for process in started:
            if process.wait(START_SECONDS):
                raise ClusterError(f"Ray did not start: {self.logs()}")

    def logs(self) -> str:
        """The end of what the last of this cluster's processes have written."""
        return end_of_logs(self.folder)

    def run(self, host: Host, *command: str) -> subprocess.Popen[bytes]:
        """Start a process on a host, with a log of its own."""
        log = self.folder / f"{host.space}-{time.monotonic_ns()}.log"
        words = ["ip", "netns", "exec", host.space, *command]
        with log.open("wb") as file:
            return subprocess.Popen(words, stdout=file, stderr=file, env=self.environment, cwd=ROOT)

    def raylet(self, host: Host) -> int:
        """Process of what starts a host's workers."""
        return host.pid_of("raylet")

    def gcs(self) -> int:
        """Process of the cluster's control store, on the head."""
        return self.head.pid_of("gcs_server")

    def governor(self) -> int:
        """Process of the governor's actor."""
        return self.head.pid_of("ray::GovernorActor")


def end_of_logs(folder: Path) -> str:
    """The end of what the last of the processes whose logs lie in a folder have written."""
    latest = sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[-2:]
    return "\n".join(path.read_text()[-3000:] for path in latest)


@contextmanager
def cluster(
    hosts: list[Host], environment: Mapping[str, str] | None = None, *, dashboard: bool = False
) -> Iterator[Cluster]:
    """A Ray over hosts, whose files are gone at the end."""
    folder = Path(f"/tmp/{hosts[0].space}")
    folder.mkdir(mode=0o700)
    made = Cluster(hosts, folder, environment, dashboard=dashboard)
    try:
        made.start()
        yield made
    finally:
        for host in hosts:
            host.kill()
        shutil.rmtree(folder, ignore_errors=True)


class Watched:
    """Processes whose end is seen at once, whoever is their parent and whether or not it looks.

    Args:
        pids: of processes that run.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._descriptors = {os.pidfd_open(pid): pid for pid in pids}

    def seconds_to_death(self, since: float, within: float) -> dict[int, float]:
        """Of each process, how long after a moment of the monotonic clock it was dead.

        Raises:
            TimeoutError: some are alive so many seconds after that moment.
        """
        poll = select.poll()
        found: dict[int, float] = {}
        for descriptor in self._descriptors:
            poll.register(descriptor, select.POLLIN)
        while len(found) < len(self._descriptors):
            left = since + within - time.monotonic()
            ended = poll.poll(max(0.0, left * 1000))
            if not ended and left <= 0:
                alive = sorted(set(self._descriptors.values()) - set(found))
                raise TimeoutError(f"alive {within} s after the fault: {alive}")
            for descriptor, _ in ended:
                poll.unregister(descriptor)
                found[self._descriptors[descriptor]] = time.monotonic() - since
        return found

    def close(self) -> None:
        """Look no more."""
        for descriptor in self._descriptors:
            os.close(descriptor)
