"""A sweep of trials that beat: each process leaves its name, its children, and when it last computed.

`python -m bench.beating settings.json address` runs it on the Ray of that address. Trials go on until the
file `enough` is there. Given a folder instead, it runs one sweep after another, each as soon as its settings
are there, until it is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import ray
from ray import tune

import safety

ENOUGH = "enough"
# a file of this name after a process's number makes it wait in C code
STICK = "stick"
STEP_SECONDS = 0.2
BEAT_SECONDS = 0.005
REPORTS = 100_000
BOUNDS = {"max_params": 1000, "max_flops": 10**9, "max_memory": 10**9}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one sweep of beating trials is like.

    Attributes:
        folder: where its processes leave their marks; the ledger's URL names another file.
        ledger: SQLAlchemy URL.
        sweep: name in the ledger.
        trials: that follow one another where they are cut short.
        concurrent: of them at a time.
        lease_seconds: of the limits.
        grace_seconds: of the limits.
        retries: how often a trial whose process died is run again.
        children: whether each trial starts a forked child and a command.
    """

    folder: str
    ledger: str
    sweep: str = "beating"
    trials: int = 30
    concurrent: int = 3
    lease_seconds: int = 3
    grace_seconds: int = 2
    retries: int = 0
    children: bool = False


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process that ran a trial.

    Attributes:
        pid: of the process; namespaces of the network share them.
        address: of its host.
        trial: Tune's id.
        children: processes that it started.
    """

    pid: int
    address: str
    trial: str
    children: tuple[int, ...] = ()


def workers(folder: Path) -> list[Worker]:
    """Every process that ever ran a trial, the newest last."""
    marks = sorted(folder.glob("*.worker"), key=lambda path: path.stat().st_mtime_ns)
    found = [json.loads(path.read_text()) for path in marks]
    return [Worker(**{**mark, "children": tuple(mark["children"])}) for mark in found]


def last_beat(folder: Path, pid: int) -> float:
    """When a process last computed, on the machine's monotonic clock."""
    return float((folder / f"{pid}.beat").read_text())


class Beating(tune.Trainable):
    """Computes by writing down what time it is."""

    def setup(self, config: dict[str, Any]) -> None:
        """Leave a mark."""
        self._folder, pid = Path(config["folder"]), os.getpid()
        children = _children() if config["children"] else ()
        self._beat = os.open(self._folder / f"{pid}.beat", os.O_CREAT | os.O_WRONLY)
        self._write_beat()
        worker = Worker(
            pid=pid, address=ray.util.get_node_ip_address(), trial=str(self.trial_id), children=children
        )
        mark = self._folder / f"{pid}.mark"
        mark.write_text(json.dumps(asdict(worker)))
        mark.rename(self._folder / f"{pid}.worker")

    def _write_beat(self) -> None:
        os.pwrite(self._beat, f"{time.monotonic():.6f}".encode(), 0)

    def step(self) -> dict[str, Any]:
        """Beat for a while, or get stuck."""
        if (self._folder / f"{os.getpid()}.{STICK}").exists():
            _stick()
        until = time.monotonic() + STEP_SECONDS
        while time.monotonic() < until:
            self._write_beat()
            time.sleep(BEAT_SECONDS)
        return {"score": 0.5, "done": (self._folder / ENOUGH).exists()}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """There is nothing to save."""
        del checkpoint_dir
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing was saved."""


def _children() -> tuple[int, ...]:
    forked = os.fork()
    if not forked:
        time.sleep(1000)
        os._exit(0)
    return forked, subprocess.Popen(["sleep", "1000"]).pid


def _stick() -> None:
    for number in range(1, signal.NSIG):
        with suppress(OSError, ValueError):  # two of them can't be ignored
            signal.signal(number, signal.SIG_IGN)
    ctypes.PyDLL(None).sleep(1000)


def run(settings: Settings) -> dict[str, Any]:
    """Run the sweep to its end; how many trials ended well, and how many did not."""
    space = {"folder": settings.folder, "children": settings.children}
    tuner = tune.Tuner(
        tune.with_resources(Beating, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=settings.trials,
            max_concurrent_trials=settings.concurrent,
        ),
        run_config=tune.RunConfig(
            name=settings.sweep,
            storage_path=settings.folder,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=settings.retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    limits = {
        "bounds": BOUNDS,
        "sweep": {"trials": 100, "train_flops": 10**18},
        "lease_seconds": settings.lease_seconds,
        "grace_seconds": settings.grace_seconds,
    }
    governed = safety.govern(
        tuner,
        limits,
        lambda _config: {"train_flops": REPORTS * 10**9},
        ledger=settings.ledger,
        trial_seconds=600,
        reports=REPORTS,
        meter=None,
    )
    results = governed.fit()
    return {"ended": len(results) - results.num_errors, "failed": results.num_errors}


def settings_in(folder: Path, number: int) -> Path:
    """Where a driver of several sweeps finds the settings of one of them."""
    return folder / f"{number}.json"


def ended_in(folder: Path, number: int) -> Path:
    """The file that is there when a driver of several sweeps has ended one of them."""
    return folder / f"{number}.ended"


def run_in_turn(folder: Path) -> None:
    """Run each sweep whose settings come."""
    for number in count():
        while not settings_in(folder, number).exists():
            time.sleep(0.02)
        run(Settings(**json.loads(settings_in(folder, number).read_text())))
        ended_in(folder, number).touch()


def main() -> None:
    """Run what a file or a folder says; of a file, the last line is JSON."""
    told = Path(sys.argv[1])
    ray.init(address=sys.argv[2], log_to_driver=False)
    if told.is_dir():
        run_in_turn(told)
    else:
        print(json.dumps(run(Settings(**json.loads(told.read_text())))))


if __name__ == "__main__":
    main()
