"""What is wrong with a cluster, before anything runs on it: from facts of its nodes, and of its governor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rsi_ray.cluster_facts import Access, Gpu, Node, Watch

# the lease's clock is the governor's alone; a driver's only dates rows and folders
CLOCK_MS = 1_000
FREE_BYTES, FREE_SHARE = 5 * 10**9, 0.05
GPU_IN_USE = 0.1
DRILL_DAYS = 30
DAY_MS = 86_400_000


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A line of the doctor's.

    Attributes:
        level: how bad it is.
        about: what was looked at.
        told: what was found.
        to_do: what helps; "" where nothing has to be done.
    """

    level: Level
    about: str
    told: str
    to_do: str = ""


def findings(
    nodes: Sequence[Node],
    access: Access,
    watch: Watch,
    here: Mapping[str, str],
    now_ms: int,
    *,
    artifacts: str = "",
) -> list[Finding]:
    """Everything that was looked at, the head's node first.

    Args:
        nodes: that are alive.
        access: to the cluster.
        watch: over it.
        here: versions of this process.
        now_ms: Unix time in milliseconds.
        artifacts: URI of the store that workers write into; "" where all nodes share the storage.
    """
    works = [node for node in nodes if not node.failed]
    return [
        *_nodes(nodes),
        *_versions(works, here),
        *_access(access),
        *_clocks(works),
        *_disks(works),
        *(_artifacts(works, artifacts) if artifacts else _storage(works)),
        *_gpus(works),
        *_watch(watch, now_ms),
    ]


def _judged(about: str, problems: Sequence[Finding], fine: str) -> Iterator[Finding]:
    """The problems, or one line that there are none."""
    yield from problems or [Finding(level=Level.OK, about=about, told=fine)]


def _nodes(nodes: Sequence[Node]) -> Iterator[Finding]:
    def problem(node: Node) -> Finding:
        to_do = "install this project's wheel there, with the head's constraints"
        return Finding(
            level=Level.FAIL, about="nodes", told=f"{node.address}: nothing runs: {node.failed}", to_do=to_do
        )

    yield from _judged(
        "nodes",
        [problem(node) for node in nodes if node.failed],
        f"{len(nodes)} alive, and each runs this project",
    )


def _versions(nodes: Sequence[Node], here: Mapping[str, str]) -> Iterator[Finding]:
    found = []
    for node in nodes:
        others = {
            name: (node.versions.get(name, "none"), version)
            for name, version in here.items()
            if node.versions.get(name) != version
        }
        if others:
            told = ", ".join(f"{name} {theirs}, here {ours}" for name, (theirs, ours) in others.items())
            to_do = "install the same versions on every node, by constraints.txt"
            found.append(
                Finding(level=Level.FAIL, about="versions", told=f"{node.address}: {told}", to_do=to_do)
            )
    fine = ", ".join(f"{name} {version}" for name, version in list(here.items())[:4])
    yield from _judged("versions", found, f"the same everywhere: {fine}")


def _access(access: Access) -> Iterator[Finding]:
    token = "start every node with RAY_AUTH_MODE=token and one token; see docs/cluster.md"
    if access.asks_for_token:
        yield Finding(level=Level.OK, about="authentication", told="nobody is let in without the token")
    elif access.asks_for_token is None:
        told = "not known: the dashboard doesn't answer"
        yield Finding(level=Level.WARN, about="authentication", told=told, to_do=token)
    else:
        told = "off: whoever reaches the cluster runs what they like on it"
        yield Finding(level=Level.FAIL, about="authentication", told=told, to_do=token)
    if access.public and access.in_pod and access.asks_for_token:
        told = f"answers at {access.public}, to whom the network policy lets in"
        to_do = "see that deploy/kuberay's NetworkPolicy is there, and that the cluster's network enforces it"
        yield Finding(level=Level.WARN, about="dashboard", told=told, to_do=to_do)
    elif access.public:
        told = f"answers at {access.public}, to other hosts too"
        to_do = "start the head with --dashboard-host=127.0.0.1, and reach it by `ray dashboard` or ssh -L"
        yield Finding(level=Level.FAIL, about="dashboard", told=told, to_do=to_do)
    else:
        where = f"at {access.dashboard}, for its own host alone" if access.dashboard else "there is none"
        yield Finding(level=Level.OK, about="dashboard", told=where)


def _clocks(nodes: Sequence[Node]) -> Iterator[Finding]:
    found = []
    for node in nodes:
        ahead, wrong = node.clock_ms
        if abs(ahead) - wrong > CLOCK_MS:
            told = f"{node.address}: {abs(ahead) / 1000:.1f} s {'ahead' if ahead > 0 else 'behind'}"
            found.append(
                Finding(level=Level.WARN, about="clocks", told=told, to_do="run chrony or ntpd on every node")
            )
    yield from _judged("clocks", found, f"all within {CLOCK_MS / 1000:g} s")


def _disks(nodes: Sequence[Node]) -> Iterator[Finding]:
    found = []
    for node in nodes:
        for folder, (free, total) in node.free.items():
            if free < min(FREE_BYTES, FREE_SHARE * total):
                told = f"{node.address}: {free / 1e9:.1f} of {total / 1e9:.0f} GB are free at {folder}"
                to_do = "make room there, or name another folder"
                found.append(Finding(level=Level.FAIL, about="disk", told=told, to_do=to_do))
    least = min((free for node in nodes for free, _ in node.free.values()), default=0)
    yield from _judged("disk", found, f"at least {least / 1e9:.0f} GB are free on every node")


def _storage(nodes: Sequence[Node]) -> Iterator[Finding]:
    to_do = "name a storage that every node mounts at the same place: --storage, or `storage:` in the file"
    found = [
        Finding(level=Level.FAIL, about="storage", told=f"{node.address}: {node.storage}", to_do=to_do)
        for node in nodes
        if node.storage
    ]
    yield from _judged("storage", found, "every node reads and writes it")


def _artifacts(nodes: Sequence[Node], uri: str) -> Iterator[Finding]:
    to_do = "let every node reach it, with credentials in the environment that Ray is started in, or a role"
    found = [
        Finding(level=Level.FAIL, about="artifacts", told=f"{node.address}: {node.artifacts}", to_do=to_do)
        for node in nodes
        if node.artifacts
    ]
    yield from _judged("artifacts", found, f"every node reads and writes {uri}")


def _gpus(nodes: Sequence[Node]) -> Iterator[Finding]:
    found = [
        *_kinds([gpu for node in nodes for gpu in node.gpus]),
        *(finding for node in nodes for finding in _gpus_of(node)),
        *_torch(nodes),
    ]
    drivers = {gpu.driver for node in nodes for gpu in node.gpus}
    if len(drivers) > 1:
        told, to_do = f"drivers {', '.join(sorted(drivers))}", "install one driver on every node"
        found.append(Finding(level=Level.WARN, about="GPUs", told=told, to_do=to_do))
    yield from _judged("GPUs", found, "none")


def _kinds(gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """A line for each kind of GPU."""
    kinds: dict[tuple[str, int, str], list[Gpu]] = {}
    for gpu in gpus:
        kinds.setdefault((gpu.name, gpu.total_bytes, gpu.driver), []).append(gpu)
    for (name, total, driver), alike in sorted(kinds.items()):
        # memory that is shared with the host isn't told
        memory = f"{total / 1e9:.0f} GB{' each' if len(alike) > 1 else ''}" if total else "memory not told"
        used = sum(map(_is_in_use, alike))
        state = f"{used} in use" if used else "free"
        told = f"{len(alike)} {name}, {memory}, driver {driver}, {state}"
        yield Finding(level=Level.OK, about="GPUs", told=told)


def _is_in_use(gpu: Gpu) -> bool:
    return gpu.used_bytes > GPU_IN_USE * gpu.total_bytes


def _gpus_of(node: Node) -> Iterator[Finding]:
    if node.gpus_of_ray != len(node.gpus):
        told = f"{node.address}: Ray gives out {node.gpus_of_ray:g}, the driver knows {len(node.gpus)}"
        to_do = "start Ray there with --num-gpus as many as nvidia-smi lists"
        yield Finding(level=Level.WARN, about="GPUs", told=told, to_do=to_do)
    for number, gpu in enumerate(node.gpus):
        if _is_in_use(gpu):
            told = (
                f"{node.address}: {gpu.name} {number} has {gpu.used_bytes / 1e9:.1f} of "
                f"{gpu.total_bytes / 1e9:.0f} GB in use"
            )
            to_do = "see `nvidia-smi` there for whose it is; trials may run out of memory"
            yield Finding(level=Level.WARN, about="GPUs", told=told, to_do=to_do)


def _torch(nodes: Sequence[Node]) -> Iterator[Finding]:
    # without a driver Ray was told of GPUs by hand: trials say so, and train on the CPU
    asked = [node for node in nodes if node.gpus_of_ray and (node.torch is None or node.torch.has_driver)]
    for node in asked:
        if node.torch is None:
            told, to_do = "all in use: torch was not asked", "run the doctor when no trial runs there"
            level = Level.WARN
        elif node.torch.fault:
            told = f"torch can't use them: {node.torch.fault}"
            to_do = "install a build of torch there that fits the driver, or a newer driver"
            level = Level.FAIL
        else:
            continue
        yield Finding(level=level, about="GPUs", told=f"{node.address}: {told}", to_do=to_do)
    if asked and all(node.torch and not node.torch.fault for node in asked):
        yield Finding(level=Level.OK, about="GPUs", told="torch computes on them, on every node")


def _watch(watch: Watch, now_ms: int) -> Iterator[Finding]:
    if watch.fault:
        to_do = "nothing begins without it: see the head's disk, and the governor's log in the dashboard"
        yield Finding(level=Level.FAIL, about="governor", told=watch.fault, to_do=to_do)
        return
    if not watch.ledger:
        yield Finding(level=Level.OK, about="governor", told="none yet; the first run starts it")
        return
    yield Finding(level=Level.OK, about="governor", told=f"keeps {watch.ledger}")
    yield _drill(watch, now_ms)
    if watch.killed is not None:
        told, to_do = f"thrown: {watch.killed}", "nothing begins until `rsi-ray unkill`"
        yield Finding(level=Level.FAIL, about="kill switch", told=told, to_do=to_do)
    for lineage in watch.frozen:
        to_do = "see `rsi-ray incidents list`"
        told = f"lineage {lineage} was shut down"
        yield Finding(level=Level.WARN, about="incidents", told=told, to_do=to_do)


def _drill(watch: Watch, now_ms: int) -> Finding:
    to_do = "run `rsi-ray drill`"
    if watch.missed:
        return Finding(
            level=Level.FAIL, about="drill", told=f"the last one failed: {watch.missed}", to_do=to_do
        )
    if watch.drilled_ms is None:
        return Finding(level=Level.WARN, about="drill", told="the kill switch was never tried", to_do=to_do)
    days = (now_ms - watch.drilled_ms) // DAY_MS
    level = Level.WARN if days > DRILL_DAYS else Level.OK
    told = f"the last one passed, {days} days ago"
    return Finding(level=level, about="drill", told=told, to_do=to_do if level == Level.WARN else "")


def lines(found: Sequence[Finding]) -> list[str]:
    """A line for each, what is to be done last."""
    return [
        f"{one.level:5} {one.about:15} {one.told}" + (f"; {one.to_do}" if one.to_do else "") for one in found
    ]
