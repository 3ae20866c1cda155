"""Ray shell: the facts that the doctor judges, from every node of a cluster and from its governor."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.cluster_facts import Access, Gpu, Node, Watch
from rsi_ray.errors import ArtifactStoreError
from rsi_ray.gpu_probe import torch_on
from rsi_ray.ledgers import sqlite_path
from rsi_ray.printable import one_line
from rsi_ray.versions import versions_here
from safety import Ledger, SafetyError
from safety.actor import connect, connect_to_any
from safety.database import problem_of, without_password
from safety.governor_process import NAME, NAMESPACE

# for a node to start a process, and to answer
START_SECONDS, ANSWER_SECONDS = 90.0, 30.0
# of so many questions for the time the fastest counts
CLOCK_ROUNDS = 5
SMI = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,memory.used,driver_version",
    "--format=csv,noheader,nounits",
)
MIB = 2**20


class Probe:
    """Looks at the node that it is on."""

    def facts(self, storage: str, mark: str, own: Sequence[str] = (), artifacts: str = "") -> dict[str, Any]:
        """What this node says of itself.

        Args:
            storage: folder of all runs.
            mark: of a file in it that another node has written.
            own: further folders of this node.
            artifacts: URI of a store; "" for none.
        """
        folders = {tempfile.gettempdir(), storage, *own}
        return {
            "versions": versions_here(),
            "free": {folder: _free(Path(folder)) for folder in sorted(folders)},
            "storage": _storage(Path(storage), mark),
            "artifacts": _artifacts(artifacts),
            "gpus": gpus(),
        }

    def gpus(self) -> list[Gpu]:
        """The GPUs of this node."""
        return gpus()

    def clock(self) -> float:
        """Unix time in milliseconds."""
        return time.time() * 1000


def _free(folder: Path) -> tuple[int, int]:
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


def _storage(storage: Path, mark: str) -> str:
    try:
        found = (storage / mark).read_text()
        (storage / f"{mark}-{secrets.token_hex(4)}").write_text("seen")
    except OSError as error:
        return f"{storage} is not the storage of the head: {one_line(error)}"
    return "" if found == mark else f"{storage} is not the storage of the head"


def _artifacts(uri: str) -> str:
    if not uri:
        return ""
    try:
        ArtifactStore(uri=uri).check()
    except ArtifactStoreError as error:
        return str(error).removeprefix("artifacts ")
    return ""


def gpus(run: Callable[..., Any] = subprocess.run) -> list[Gpu]:
    """The GPUs of this machine, by its driver's tool; none where it has none.

    Args:
        run: starts a program, as `subprocess.run`.
    """
    try:
        told = run(SMI, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    fields = [[field.strip() for field in line.split(",")] for line in told.splitlines() if line.strip()]
    return [
        Gpu(name=name, total_bytes=_bytes(total), used_bytes=_bytes(used), driver=driver)
        for name, total, used, driver in fields
    ]


def _bytes(mib: str) -> int:
    """Of memory that is shared with the host the tool tells none."""
    return int(mib) * MIB if mib.isdecimal() else 0


def smallest_gpu() -> int:
    """Bytes of the smallest GPU that Ray gives to trials; 0 where no node's driver tells of one."""
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    probes = [_probe(node["NodeID"]) for node in alive]
    sizes = []
    for probe in probes:
        with suppress(RayError):  # a node that goes while it is asked
            sizes += [gpu.total_bytes for gpu in ray.get(probe.gpus.remote(), timeout=START_SECONDS)]
        ray.kill(probe)
    return min(filter(None, sizes), default=0)


def nodes(storage: Path, ledger: Path | None, artifacts: str = "") -> list[Node]:
    """What every node that is alive says of itself.

    Args:
        storage: folder of all runs, into which this process puts a file that all must find.
        ledger: file of the ledger, on this process's node; None where a server keeps it, or there is none.
        artifacts: URI of a store that all must reach; "" for none.
    """
    mark, fault = f".doctor-{secrets.token_hex(8)}", ""
    try:
        storage.mkdir(parents=True, exist_ok=True)
        (storage / mark).write_text(mark)
    except OSError as error:
        fault = f"{storage} can't be written: {one_line(error)}"
    here = ray.util.get_node_ip_address()
    alive = [node for node in ray.nodes() if node["Alive"]]
    probes = [_probe(node["NodeID"]) for node in alive]
    found = []
    for node, probe in zip(alive, probes, strict=True):
        own = [str(ledger.parent)] if ledger and node["NodeManagerAddress"] == here else []
        told = _node(node, probe, str(storage), mark, own, artifacts)
        found.append(replace(told, storage=fault) if fault and told.storage else told)
    for left in storage.glob(f"{mark}*"):
        left.unlink(missing_ok=True)
    return _with_torch({node["NodeID"]: told for node, told in zip(alive, found, strict=True)})


def _with_torch(nodes: dict[str, Node]) -> list[Node]:
    """The nodes, with what torch makes of their GPUs."""
    torch = torch_on([name for name, node in nodes.items() if node.gpus_of_ray])
    return [replace(node, torch=torch.get(name)) for name, node in nodes.items()]


def _probe(node: str) -> Any:
    where = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(Probe).options(num_cpus=0, scheduling_strategy=where).remote()


def _node(node: dict[str, Any], probe: Any, *asked: Any) -> Node:
    address = str(node["NodeManagerAddress"])
    try:
        facts = ray.get(probe.facts.remote(*asked), timeout=START_SECONDS)
        clock = _clock(probe)
    except GetTimeoutError:
        return Node(address=address, failed=f"no answer within {START_SECONDS:g} s", versions={}, free={})
    except RayError as error:
        said = str(error).strip().splitlines()
        return Node(address=address, failed=said[-1] if said else "it died", versions={}, free={})
    finally:
        with suppress(RayError):
            ray.kill(probe)
    given = float(node["Resources"].get("GPU", 0))
    return Node(address=address, clock_ms=clock, gpus_of_ray=given, **facts)


def _clock(probe: Any) -> tuple[float, float]:
    """How far its clock is ahead of this one, and how far that may be wrong: half the way there and back."""
    rounds = []
    for _ in range(CLOCK_ROUNDS):
        asked = time.time() * 1000
        theirs = ray.get(probe.clock.remote(), timeout=ANSWER_SECONDS)
        half = (time.time() * 1000 - asked) / 2
        rounds.append((half, theirs - asked - half))
    half, ahead = min(rounds)
    return ahead, half


def access(dashboard: str) -> Access:
    """Who may speak to the cluster of this process.

    Args:
        dashboard: HOST:PORT; "" where there is none.
    """
    if not dashboard:
        return Access(dashboard="", asks_for_token=None, public="")
    host, _, port = dashboard.rpartition(":")
    address = ray.util.get_node_ip_address()
    outside = f"{address}:{port}"
    loopback = host in ("127.0.0.1", "localhost", "[::1]", "::1")
    public = outside if not address.startswith("127.") and _answers(address, int(port)) else ""
    return Access(
        dashboard=dashboard,
        asks_for_token=asks_for_token(f"http://{dashboard}/api/jobs/"),
        public=public if loopback else dashboard,
        in_pod="KUBERNETES_SERVICE_HOST" in os.environ,
    )


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 2).close()
    except OSError:
        return False
    return True


def asks_for_token(url: str) -> bool | None:
    """Whether somebody who shows none is sent away; None where it isn't known."""
    # a proxy that the environment names would answer for itself
    asker = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with asker.open(url, timeout=ANSWER_SECONDS):
            return False
    except urllib.error.HTTPError as error:
        return True if error.code in (401, 403) else None
    except (OSError, HTTPException):
        return None


def watch(ledger: str, storage: Path) -> Watch:
    """What the cluster's governor says, and its ledger.

    Args:
        ledger: URL of the one that is expected; "" for whichever the governor keeps.
        storage: folder of all runs, for the governor's key where the ledger is no file.
    """
    try:
        ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        return Watch(ledger="", fault=problem_of(ledger) if ledger else "")
    try:
        state = storage.absolute()
        governor = connect(ledger, state=state) if ledger else connect_to_any(ledger, state=state)
        url = governor.ledger_url()
        if (file := sqlite_path(url)) and not file.is_file():
            return Watch(ledger=url, fault=f"its ledger {file} is on another host: run the doctor there")
        with closing(Ledger(url)) as opened:
            found = opened.overview()
    except SafetyError as error:
        return Watch(ledger=without_password(ledger), fault=one_line(error))
    drill = found.drill
    return Watch(
        ledger=without_password(url),
        drilled_ms=drill.at_ms if drill else None,
        missed=drill.missed if drill else "",
        killed=found.killed.reason if found.killed else None,
        frozen=[incident.lineage for incident in found.incidents],
    )
