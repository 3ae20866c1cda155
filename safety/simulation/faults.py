"""What befalls the workers and the cluster of a rehearsal, each planned again after a random time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from random import Random

from safety.errors import LooserLimits, SafetyError
from safety.simulation.approvers import Approvers
from safety.simulation.candidates import tightened
from safety.simulation.driver import Driver, Policy
from safety.simulation.emergencies import Responders
from safety.simulation.network import Network
from safety.simulation.scenarios import Scenario
from safety.simulation.timeline import DAY_MS, Timeline
from safety.simulation.worker import Worker

LEASE_AND_GRACE_MS = 20_000


@dataclass(frozen=True, kw_only=True)
class Fate:
    """Plans what befalls a cluster."""

    timeline: Timeline
    rng: Random
    network: Network
    policy: Policy
    drivers: list[Driver]
    workers: list[Worker]
    approvers: Approvers
    responders: Responders

    def plan(self, scenario: Scenario) -> None:
        """Plan the first time of all that happens in a scenario."""
        for kinds, many in ((scenario.every_worker, len(self.workers)), (scenario.every_cluster, 1)):
            for field in fields(kinds):
                mean_seconds = getattr(kinds, field.name)
                if mean_seconds:
                    self._plan(field.name, 1000 * mean_seconds / many, getattr(self, field.name))

    def _plan(self, what: str, mean_ms: float, act: Callable[[], None]) -> None:
        def happen() -> None:
            self._plan(what, mean_ms, act)
            act()

        self.timeline.after(1 + int(self.rng.expovariate(1 / mean_ms)), what, happen)

    def _some_ms(self) -> int:
        """A while that may be shorter or longer than a lease and its grace."""
        return self.rng.randint(1, 3 * LEASE_AND_GRACE_MS)

    # --- workers

    def worker_dies(self) -> None:
        """SIGKILL."""
        worker = self.rng.choice(self.workers)
        if worker.request:
            worker.die()

    def worker_stops(self) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        self.rng.choice(self.workers).stop(self._some_ms())

    def node_is_cut_off(self) -> None:
        """The calls of all workers of a node do not arrive for a while."""
        node = self.rng.choice(self.workers).node
        node.cut_off_until = self.timeline.now + self._some_ms()

    def twin_begins(self) -> None:
        """Another process begins a trial that a worker has."""
        request = self.rng.choice(self.workers).request
        if request:
            self._try("ask", None, "activate", request.key, request.digest, "twin", None)

    def _try(self, way: str, *arguments: object) -> None:
        try:
            getattr(self.network, way)(*arguments)
        except SafetyError:
            self.network.tally["operator refused"] += 1

    # --- the cluster

    def driver_dies(self) -> None:
        """SIGKILL of a driver."""
        self.rng.choice(self.drivers).die(2 * self._some_ms())

    def sweep_closes(self) -> None:
        """A driver ends its sweep."""
        self.rng.choice(self.drivers).close()

    def governor_crashes(self) -> None:
        """SIGKILL of the governor; it is started again."""
        self.network.crash_and_restart(within_ms=LEASE_AND_GRACE_MS)

    def governor_crashes_in_a_call(self) -> None:
        """SIGKILL of the governor between a call's effect and its reply."""
        self.network.crashes_next = True

    def host_reboots(self) -> None:
        """The governor's host starts again: its monotonic clock begins anew."""
        self.network.reboot(within_ms=2 * LEASE_AND_GRACE_MS)

    def wall_clock_is_set(self) -> None:
        """The wall clock is set a day ahead, a day back, or right."""
        self.network.set_wall(self.rng.choice((-DAY_MS, 0, DAY_MS)))

    def database_is_away(self) -> None:
        """Nothing can be read from the ledger's database, or written to it, for a while."""
        self.network.is_away = True
        self.timeline.after(self._some_ms(), "the database is back", self._database_is_back)

    def _database_is_back(self) -> None:
        self.network.is_away = False

    def switch_is_thrown(self) -> None:
        """Somebody throws the kill switch, and lifts it after a while."""
        self._try("operate", "kill", "rehearsed", "operator")
        self.timeline.after(self._some_ms(), "the switch is lifted", self._switch_is_lifted)

    def _switch_is_lifted(self) -> None:
        self._try("operate", "unkill", "rehearsed", "operator")

    def sweep_is_frozen(self) -> None:
        """Somebody freezes a sweep."""
        self._try("operate", "freeze", self.rng.choice(self.drivers).sweep, "rehearsed")

    def limits_are_tightened(self) -> None:
        """A sweep is opened with less for the whole cluster."""
        self.policy.limits = tightened(self.policy.limits, self.rng.uniform(0.7, 0.99))
        self._try("operate", "open_sweep", f"tighter-{self.timeline.now}", self.policy.limits)

    def looser_limits_are_asked(self) -> None:
        """A sweep is opened with more for the whole cluster, which takes an approval."""
        looser = tightened(self.policy.first, 2.0)
        try:
            self.network.operate("open_sweep", f"looser-{self.timeline.now}", looser)
        except SafetyError as error:
            self.network.tally["looser limits refused"] += isinstance(error, LooserLimits)

    def champion_is_proposed(self) -> None:
        """Somebody asks for the promotion of a champion."""
        self.approvers.propose()

    def champion_is_rolled_back(self) -> None:
        """Somebody takes a champion back."""
        self.responders.roll_back()

    def lineage_is_shut_down(self) -> None:
        """Somebody shuts a lineage down, and others go on with it."""
        self.responders.shut_down()
