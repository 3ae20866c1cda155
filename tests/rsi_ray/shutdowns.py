"""A lineage with champions on disk, and a process that is killed in the middle of its shutdown."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from rsi_ray.alerts import AlertsConfig
from rsi_ray.emergency import Ports, shut_down
from safety import Allow, Champion, Ledger
from tests.safety.fakes import limits

LINEAGE = "family"


class Store:
    """Champions on disk: a file of weights each, and a pointer to the present one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def add(self, number: int) -> str:
        """Write a champion's weights; its digest."""
        content = f"weights {number}".encode()
        digest = hashlib.sha256(content).hexdigest()
        self.path(digest).write_bytes(content)
        return digest

    def path(self, artifact: str) -> Path:
        return self.folder / f"{artifact[:12]}.safetensors"

    @property
    def current(self) -> str:
        pointer = self.folder / "current"
        return pointer.read_text() if pointer.exists() else ""

    def revert(self, artifact: str) -> Path | None:
        (self.folder / "current").write_text(artifact)
        with (self.folder / "switches").open("a") as file:
            file.write(artifact[:12] + "\n")
        return self.weights()

    def weights(self) -> Path | None:
        return self.path(self.current) if self.current else None


def two_champions(ledger: Ledger, store: Store, **more: Any) -> list[str]:
    """Two champions, each gaining more than half again, the second of which stands; their digests."""
    ledger.open_sweep("x", limits(require_approval=False, max_improvement_rate=10.0, **more), LINEAGE)
    artifacts, parent, scores = [store.add(number) for number in (1, 2)], "", (0.5, 0.505, 0.515)
    for number, artifact in enumerate(artifacts, start=1):
        champion = Champion(artifact=artifact, parent=parent, generation=number, evidence="e", train_gflop=1)
        old, new = scores[number - 1 : number + 1]
        assert ledger.promote("x", f"p{number}", old, new, champion=champion) == Allow()
        parent = artifact
    store.revert(artifacts[-1])
    return artifacts


def ports(authority: Any, storage: Path, store: Any, config: AlertsConfig | None = None) -> Ports:
    """What a shutdown works on, with nothing to wait for."""
    return Ports(
        authority=authority, ledger="the ledger", folder=storage / "incidents",
        alerts=config or AlertsConfig(seconds=0.0), weights=store.weights, revert=store.revert,
        history=lambda: [{"generation": 1, "difference": "depth: 2 -> 4"}], log=lambda: ["a line"],
        versions=lambda: {"python": "3"}, by="the loop", worker_seconds=0.0,
    )  # fmt: skip


class Deadly:
    """Does what another object does; after one of its calls the process is killed by a signal."""

    def __init__(self, inner: Any, method: str, argument: str) -> None:
        self._inner, self._method, self._argument = inner, method, argument

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if name != self._method:
            return inner

        def call(*arguments: Any, **more: Any) -> Any:
            found = inner(*arguments, **more)
            if not self._argument or self._argument in arguments:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return call


def _main(storage: str, of: str, method: str, argument: str) -> None:
    store: Any = Store(Path(storage) / "champions")
    ledger: Any = Ledger(f"sqlite:///{storage}/ledger.db")
    if of == "ledger":
        ledger = Deadly(ledger, method, argument)
    else:
        store = Deadly(store, method, argument)
    shut_down(ports(ledger, Path(storage), store), LINEAGE, "fire")


if __name__ == "__main__":
    _main(*sys.argv[1:])
