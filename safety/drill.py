"""Ray shell: a kill drill: canaries on every node, on which alone the switch is thrown."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psutil
import ray
from ray import tune

from safety.actor import GovernorClient
from safety.drills import Canary
from safety.errors import SafetyError
from safety.governor_process import NAMESPACE
from safety.limits import Bounds, Limits
from safety.pricing import Pricing
from safety.tuner import GovernedTuner, Home

TARGET_MS = 2000
# for the canaries to start, and to die
START_SECONDS, DEATH_SECONDS = 120.0, 60.0
# a canary that has enrolled is by then where it is hard to kill
READY_SECONDS = 0.5
# a drill's trials end by themselves after so long, whatever happens
TRIAL_SECONDS = 300
STUCK_SECONDS = 2 * TRIAL_SECONDS
_LIMITS = Limits(bounds=Bounds(max_params=1, max_flops=1, max_memory=1))
_HOME = Home(ledger=None, key="")
_CLAIM = {"params": 1, "forward_flops": 1, "memory_bytes": 1, "train_flops": 0}


def _ordinary() -> None:
    time.sleep(0.05)


def _deaf() -> None:  # pragma: no cover - a process that runs it can only be killed
    """Catches every exception and ignores every signal that can be."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    while True:
        with suppress(BaseException):
            time.sleep(0.05)


def _stuck() -> None:
    """Never comes back from C, where it holds the interpreter's lock."""
    ctypes.PyDLL(None).usleep(round(STUCK_SECONDS * 1e6))


KINDS: dict[str, Callable[[], None]] = {"ordinary": _ordinary, "deaf": _deaf, "stuck": _stuck}


class CanaryTrial(tune.Trainable):
    """A trial that computes nothing and is hard to kill."""

    def setup(self, config: dict[str, Any]) -> None:
        """Learn which one it is."""
        self._canary = config["canary"]

    def step(self) -> dict[str, Any]:
        """Enrol once, then be what it is."""
        if self.training_iteration == 0:
            observer = ray.get_actor(self._canary["observer"], namespace=NAMESPACE)
            ray.get(observer.enroll.remote(self._canary["kind"], os.getpid()))
        KINDS[self._canary["kind"]]()
        return {}


class Observer:
    """Watches the canaries of one node, on that node."""

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}

    async def enroll(self, kind: str, pid: int) -> None:
        """A canary lives."""
        self._pids[kind] = pid

    async def enrolled(self) -> int:
        """How many canaries live here."""
        return len(self._pids)

    async def gone(self, kind: str) -> None:
        """Come back when a canary is dead."""
        while _is_alive(self._pids[kind]):
            await asyncio.sleep(0.005)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class _DrillTuner(GovernedTuner):
    """A sweep of canaries: one may begin though the last drill failed, else none would ever pass."""

    def __init__(self, tuner: tune.Tuner, client: GovernorClient, sweep: str) -> None:
        pricing = Pricing(
            bounds=_LIMITS.bounds,
            cost=lambda _: _CLAIM,
            trial_seconds=TRIAL_SECONDS,
            reports=None,
            counted=frozenset(),
        )
        super().__init__(
            tuner, pricing=pricing, limits=_LIMITS, home=_HOME, sweep=sweep, meter=None, device_memory=None
        )
        self._client = client

    def governor(self) -> GovernorClient:
        return self._client

    def _open(self, governor: GovernorClient) -> Limits:
        return governor.open_sweep(self.sweep, _LIMITS, is_drill=True)


def run_drill(governor: GovernorClient, by: str, *, target_ms: int = TARGET_MS) -> list[Canary]:
    """Start canaries on every node, throw the switch on them, and write down how long each one lived.

    Args:
        governor: of the cluster.
        by: who asks for it.
        target_ms: from the switch to the last death; beyond it the drill has failed.

    Raises:
        SafetyError: they could not be started; nothing is written down.
    """
    sweep = f"drill-{time.time_ns()}"
    observers = {node: _observer(node, f"{sweep}-{node}") for node in _nodes()}
    failures: list[BaseException] = []
    with tempfile.TemporaryDirectory() as folder:
        tuner = _DrillTuner(_tuner(sorted(observers), sweep, folder), governor, sweep)
        thread = threading.Thread(target=_fit, args=(tuner, failures), name="drill", daemon=True)
        thread.start()
        try:
            _wait_for_all(observers, failures)
            canaries = _killed(governor, observers, sweep)
        finally:
            with suppress(SafetyError):  # it was never opened
                governor.freeze(sweep, "the drill is over")
            thread.join(DEATH_SECONDS)
            for observer in observers.values():
                ray.kill(observer)
    governor.record_drill(canaries, target_ms, by)
    return canaries


def _nodes() -> list[str]:
    return sorted({str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]})


def _observer(node: str, name: str) -> Any:
    options = {"name": name, "namespace": NAMESPACE, "num_cpus": 0, "resources": _on(node)}
    return ray.remote(Observer).options(**options).remote()


def _on(node: str) -> dict[str, float]:
    return {f"node:{node}": 0.001}


def _tuner(nodes: list[str], sweep: str, folder: str) -> tune.Tuner:
    canaries = [
        {"node": node, "kind": kind, "observer": f"{sweep}-{node}"} for node in nodes for kind in KINDS
    ]
    placed = tune.with_resources(
        CanaryTrial, lambda config: tune.PlacementGroupFactory([_on(config["canary"]["node"])])
    )
    return tune.Tuner(
        placed,
        param_space={"canary": tune.grid_search(canaries)},
        run_config=tune.RunConfig(name=sweep, storage_path=folder, verbose=0),
    )


def _fit(tuner: _DrillTuner, failures: list[BaseException]) -> None:
    try:
        tuner.fit()
    except BaseException as error:  # it is told by whoever waits for the canaries
        failures.append(error)


def _wait_for_all(observers: Mapping[str, Any], failures: list[BaseException]) -> None:
    until = time.monotonic() + START_SECONDS
    wanted = [len(KINDS)] * len(observers)
    while ray.get([observer.enrolled.remote() for observer in observers.values()]) != wanted:
        if failures:
            raise SafetyError(f"drill: its canaries could not be started: {failures[0]}")
        if time.monotonic() > until:
            raise SafetyError(f"drill: its canaries did not start within {START_SECONDS:g} s")
        time.sleep(0.05)
    time.sleep(READY_SECONDS)


def _killed(governor: GovernorClient, observers: Mapping[str, Any], sweep: str) -> list[Canary]:
    pending = {
        observer.gone.remote(kind): (node, kind) for node, observer in observers.items() for kind in KINDS
    }
    thrown = time.monotonic()
    governor.freeze(sweep, "a drill")
    found = []
    while pending and time.monotonic() - thrown < DEATH_SECONDS:
        done, _ = ray.wait(list(pending), timeout=0.5)
        latency_ms = round((time.monotonic() - thrown) * 1000)
        for one in done:
            node, kind = pending.pop(one)
            found.append(Canary(node=node, kind=kind, latency_ms=latency_ms))
    alive = [Canary(node=node, kind=kind, latency_ms=None) for node, kind in pending.values()]
    return sorted([*found, *alive], key=lambda canary: (canary.node, canary.kind))
