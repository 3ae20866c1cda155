"""What is known of a cluster before anything runs on it: its nodes, who may speak to it, its governor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A GPU, by its driver's tool.

    Attributes:
        name: of its model.
        total_bytes, used_bytes: of its memory.
        driver: version.
    """

    name: str
    total_bytes: int
    used_bytes: int
    driver: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Torch:
    """What torch makes of a GPU, in a process that Ray has given it to.

    Attributes:
        fault: why it can't use it; "" where it can.
        has_driver: whether the node has a GPU's driver at all; without one Ray was told of GPUs by hand.
    """

    fault: str = ""
    has_driver: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """What a node says of itself.

    Attributes:
        address: of the node.
        failed: why nothing of this project runs there; "" where it does.
        versions: of Python and the libraries.
        clock_ms: how far its clock is ahead of this one, and how far that may be wrong.
        free: bytes that are free of how many, by folder.
        storage: "" where what this process has put into the storage is there too; else what is wrong.
        artifacts: "" where it reads and writes the artifact store, or none is asked for; else what is wrong.
        gpus: that its driver tells of.
        gpus_of_ray: that Ray gives to trials there.
        torch: what it makes of them; None where there are none, or none was free to ask it by.
    """

    address: str
    failed: str = ""
    versions: Mapping[str, str]
    clock_ms: tuple[float, float] = (0.0, 0.0)
    free: Mapping[str, tuple[int, int]]
    storage: str = ""
    artifacts: str = ""
    gpus: Sequence[Gpu] = ()
    gpus_of_ray: float = 0.0
    torch: Torch | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """Who may speak to a cluster.

    Attributes:
        dashboard: its address; "" where there is none.
        asks_for_token: whether it lets nobody in without one; None where that is not known.
        public: the node's address at which it answers besides the head's own; "" where it doesn't.
        in_pod: whether it is a pod's, which a network policy can shield: there it answers to all by need.
    """

    dashboard: str
    asks_for_token: bool | None
    public: str
    in_pod: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """Governor and ledger.

    Attributes:
        ledger: URL, without a password; "" where no governor runs yet.
        fault: why the governor gives no answer, or none could open the ledger; "" where it does, or could.
        drilled_ms: when the kill switch was last drilled; None for never.
        missed: how that drill failed; "" where it passed.
        killed: why the switch is thrown; None where it isn't.
        frozen: lineages that were shut down and not released.
    """

    ledger: str
    fault: str = ""
    drilled_ms: int | None = None
    missed: str = ""
    killed: str | None = None
    frozen: Sequence[str] = ()
