"""Where the drivers of a bench run: a Ray that is up, a ledger, and a folder for what they leave."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray

from bench.hosts import ROOT


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where drivers run.

    Attributes:
        address: of a Ray that is up.
        folder: for whatever they leave, their logs too.
        start: runs a command as a process where a driver would.
    """

    address: str
    folder: Path
    start: Callable[..., subprocess.Popen[bytes]]

    @property
    def ledger(self) -> Path:
        """File of the ledger, in a folder of its own."""
        return self.folder / "ledger" / "ledger.db"

    @property
    def ledger_url(self) -> str:
        """The same for SQLAlchemy."""
        return f"sqlite:///{self.ledger}"


def on_this_ray(folder: Path) -> Place:
    """The Ray that this process is connected to."""
    address = ray.get_runtime_context().gcs_address
    return Place(address=address, folder=folder, start=partial(_start, folder))


@contextmanager
def one_ray(cpus: int) -> Iterator[Place]:
    """A Ray of this machine alone, with room for so many workers."""
    with tempfile.TemporaryDirectory() as made:
        ray.init(address="local", num_cpus=cpus, log_to_driver=False)
        try:
            yield on_this_ray(Path(made))
        finally:
            ray.shutdown()


def _start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    with (folder / f"{time.monotonic_ns()}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
