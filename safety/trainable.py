"""Ray shell of gate 3 for whatever Tune trains: any Trainable, under a lease of its own for each trial."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.tune import Trainable
from ray.tune.result import RESULT_DUPLICATE

from safety.device_memory import DeviceMemories
from safety.errors import LeaseLost
from safety.governance import REFUSED, marker, tellable
from safety.governor import Authority
from safety.keeper import LeaseKeeper
from safety.kernel import KernelTimer, bury_children, parent_runs
from safety.meter import Meter, Meters
from safety.resources import DeviceMemory, resident_bytes
from safety.tenure import Tenure


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What every worker of a sweep is told.

    Attributes:
        authority: the governor.
        sweep: name of the sweep.
        digest: of a configuration, as it was asked for.
        meters: a meter, or (library, `module:Class`) of each; None for none.
        max_memory: ceiling of a candidate's memory: what a claim has whose memory nobody told.
        device_memory: tells what a trial takes of its GPUs, or (library, `module:Class`) of each that does;
            None for nobody.
    """

    authority: Authority
    sweep: str
    digest: Callable[[Mapping[str, Any]], str]
    meters: Meter | tuple[tuple[str, str], ...] | None
    max_memory: int
    device_memory: DeviceMemory | tuple[tuple[str, str], ...] | None = None

    def tenure(self) -> Tenure:
        """The worker's side, once for a process."""
        meter = Meters(self.meters) if isinstance(self.meters, tuple) else self.meters
        memory, device = (resident_bytes, self._device()) if is_own_process() else (None, None)
        keeper = keeper_of_this_process(self.authority, memory, device, untold=self.max_memory)
        return Tenure(self.authority, keeper, meter)

    def _device(self) -> DeviceMemory | None:
        told = self.device_memory
        return DeviceMemories(told) if isinstance(told, tuple) else told


def is_own_process() -> bool:
    """Whether Ray has started this process for an actor: nobody else's work is in it."""
    return ray.is_initialized() and bool(ray.get_runtime_context().get_actor_id())


def keeper_of_this_process(
    authority: Authority,
    memory: Callable[[], int] | None = None,
    device: DeviceMemory | None = None,
    untold: int | None = None,
    led: Callable[[], bool] | None = None,
) -> LeaseKeeper:
    """Keeps the leases of a worker, whose children end with it where Ray has started it.

    Args:
        authority: who grants and renews.
        memory, device, untold: see `LeaseKeeper`.
        led: of one that joins another process's leases: whether it hears of that process.
    """
    if is_own_process():
        bury_children()
    watch: dict[str, Any] = {"memory": memory, "device": device, "untold": untold}
    runs = parent_runs()
    supervised = runs if led is None else (lambda: runs() and led())
    return LeaseKeeper(authority, KernelTimer(), supervised=supervised, **watch)


class Leased(Trainable):
    """Runs what it is mixed into under a lease: nothing of a trial begins before gate 3.

    The setup waits for the first step, since Tune may start two processes for a trial and drop one.
    """

    terms: Terms

    def setup(self, config: dict[str, Any]) -> None:
        """Keep the configuration; its setup follows under the lease."""
        self._leased_config, self._leased_ready = config, False
        self._leased_digest = self.terms.digest(config)
        self._tenure = self.terms.tenure()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Under the lease, which is settled where the trial fails by itself."""
        try:
            self._begin()
            with self._tenure.computing():
                yield
        except LeaseLost:
            raise
        except Exception:
            self._tenure.settle_cut_short()
            raise

    def _begin(self) -> None:
        if not self._tenure.has_begun:
            key, holder = f"{self.terms.sweep}/{self.trial_id}", f"{os.getpid()}@{self._local_ip}"
            self._tenure.begin(key, self._leased_digest, holder)
        if not self._leased_ready:
            with self._tenure.computing():
                super().setup(self._leased_config)
            self._leased_ready = True

    def step(self) -> dict[str, Any]:
        """One step, if the trial is allowed; each result tells the lease."""
        try:
            with self._computing():
                result: dict[str, Any] = super().step()
        except LeaseLost as error:
            return self._tenure.refused(error)
        if RESULT_DUPLICATE in result:  # a function has returned; what it did after its last report counts
            self._tenure.settle_cut_short()
            return result
        return {**tellable(result), **self._tenure.counted_report()}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make room for another trial, under its lease."""
        self._tenure.end()
        self._leased_config, self._leased_digest = new_config, self.terms.digest(new_config)
        if not self._leased_ready:
            return True
        try:
            with self._computing():
                ready = bool(super().reset_config(new_config))
        except LeaseLost:
            return True  # the next step tells
        if not ready:
            self._tenure.settle_cut_short()
        return ready

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a checkpoint, under the lease; a refusal shows in the next step."""
        try:
            with self._computing():
                super().load_checkpoint(checkpoint)
        except LeaseLost:
            return

    def save_checkpoint(self, checkpoint_dir: str) -> Any:
        """Save; a trial that was refused before it was set up has nothing to save."""
        if not self._leased_ready:
            return {REFUSED: True}
        return super().save_checkpoint(checkpoint_dir)

    def cleanup(self) -> None:
        """End the lease's renewal, and the process: Tune calls this once, last of all."""
        self._tenure.end()
        if is_own_process():  # what is cleaned up has no lease, and so little time
            self._tenure.leave()
        if self._leased_ready:
            super().cleanup()  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        """Shown by Ray; by this it is known as governed while it holds no lease."""
        return marker(self.terms.sweep, self.trial_id)


def leased(trainable: type[Trainable], name: str, terms: Terms) -> type[Trainable]:
    """A class that trains as another one does, under leases.

    Args:
        trainable: what is trained.
        name: under which Tune knows it.
        terms: what workers are told.
    """
    made = type(name, (Leased, trainable), {"terms": terms, "__doc__": trainable.__doc__})
    made.__module__ = trainable.__module__
    return made
