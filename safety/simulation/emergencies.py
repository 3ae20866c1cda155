"""People and loops that shut lineages down, complete that in any order, release them, take champions back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from safety.errors import SafetyError
from safety.simulation.approvers import NAMES, Approvers
from safety.simulation.driver import Driver
from safety.simulation.network import Network
from safety.simulation.shutdowns import Shutdowns
from safety.simulation.timeline import Timeline

# a step is tried so often, and all of them within so long
TRIES, WITHIN_MS = 12, 20_000
LOOP = "loop"


@dataclass(kw_only=True)
class Responders:
    """Shut a lineage down now and then, and do all that follows; some ask for what it is too early for."""

    timeline: Timeline
    rng: Random
    network: Network
    shutdowns: Shutdowns
    approvers: Approvers
    drivers: list[Driver]

    def shut_down(self) -> None:
        """Somebody shuts the lineage of a sweep down; processes that may die go on with it."""
        sweep = self.rng.choice(self.drivers).sweep
        if self._tried("operate", "shut_down", sweep, "rehearsed", "operator") is None:
            return
        number = self.shutdowns.standing[sweep].number
        for _ in range(TRIES):
            self.timeline.after(
                self.rng.randint(1, WITHIN_MS), "somebody goes on with it", partial(self._go_on, number)
            )

    def roll_back(self) -> None:
        """An operator goes back to what led to a champion, or would go to what didn't."""
        sweep = self.rng.choice(self.drivers).sweep
        known = self.approvers.people.champions.get(sweep, [])
        artifact = self.rng.choice(["", "another", *(champion.artifact for champion in known)])
        self._tried("operate", "rollback", sweep, artifact, "rehearsed", "operator")

    def _go_on(self, number: int) -> None:
        left = [
            ("ask", None, "revoke_leases", number, LOOP),
            ("ask", None, "take_step", number, "saved", LOOP, "here"),
            ("ask", None, "revert", number, LOOP),
            ("ask", None, "take_step", number, "reverted", LOOP),
            ("ask", None, "take_step", number, "alerted", LOOP),
            ("operate", "acknowledge", number, "seen", "dan"),
            ("operate", "release", number, "understood", "dan"),
        ]
        # most in their order, and some before their turn
        begin = 0 if self.rng.random() < 0.7 else self.rng.randrange(len(left))
        for way, *arguments in left[begin:]:
            self._tried(str(way), *arguments)
        self._decide()

    def _tried(self, way: str, *arguments: Any) -> object:
        """What it answers; None where it was refused or nothing came."""
        try:
            found: object = getattr(self.network, way)(*arguments)
        except SafetyError:
            self.network.tally["emergencies refused or not answered"] += 1
            return None
        return found

    def _decide(self) -> None:
        """Those who may approve decide of a release that was asked for."""
        self._tried("operate", "requests")
        for request in self.shutdowns.wanted():
            for name in NAMES:
                self.approvers.decide(request, name)
