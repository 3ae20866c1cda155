"""People who propose champions and decide of them; some forge, replay, or exchange what was approved."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safety.approval import Champion, Decision, Request, decide
from safety.errors import SafetyError
from safety.identity import Identity
from safety.limits import Approval, Limits
from safety.simulation.driver import Driver
from safety.simulation.network import Network
from safety.simulation.promotions import People
from safety.simulation.timeline import Action, Timeline
from safety.verdict import Allow

NAMES = ("ann", "bob", "eve")
HOUR_MS = 3_600_000
# of the base, and of every champion: small enough a step for any number of them within a window
OLD, NEW = 1.0, 1.0005
# a champion's own training has less than so many GFLOP
MOST_STEP = 12
REJECTS, FORGES, CHEATS = 0.2, 0.1, 0.3


def _identity(name: str) -> Identity:
    return Identity(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


_KEYS = {name: _identity(name) for name in (*NAMES, "stranger")}


def with_approvers(limits: Limits) -> Limits:
    """The same limits, under which two of three people approve a champion within an hour."""
    keys = {name: _KEYS[name].public for name in NAMES}
    return limits.model_copy(update={"approval": Approval(approvers=keys, quorum=2, hours=1)})


@dataclass(kw_only=True)
class Approvers:
    """Propose a champion now and then, decide of it after a while, and have it promoted."""

    timeline: Timeline
    rng: Random
    network: Network
    people: People
    drivers: list[Driver]
    number: int = 0
    past: list[tuple[Champion, Request]] = field(default_factory=list)

    def propose(self) -> None:
        """Ask for one champion of a sweep; one of the approvers may be who asks."""
        sweep = self.rng.choice(self.drivers).sweep
        self.number += 1
        parent, generation = self.people.next_of(sweep)
        champion = Champion(
            artifact=f"a{self.number}",
            parent=parent,
            generation=generation,
            evidence="e",
            # each a step beyond what led to it
            train_gflop=self.people.trained(sweep) + self.number % MOST_STEP,
        )
        by = self.rng.choice(("loop", "ann"))
        try:
            request: Request = self.network.ask(None, "ask_promotion", sweep, champion, by, "better")
        except SafetyError:
            return
        self.past.append((champion, request))
        for name in NAMES:
            self._after("decides", partial(self.decide, request, name))
        for _ in range(3):
            self._after("promotes", partial(self._promote, sweep, champion, request))

    def _after(self, what: str, act: Action) -> None:
        # now and then after the hour that a request is open for
        ms = self.rng.randint(1, 10_000) + (HOUR_MS if self.rng.random() < 0.02 else 0)
        self.timeline.after(ms, f"somebody {what}", act)

    def decide(self, request: Request, name: str) -> None:
        """One of them decides; now and then somebody forges it."""
        rejects, forges = (self.rng.random() < chance for chance in (REJECTS, FORGES))
        key = _KEYS["stranger" if forges else name]
        decision = decide(request.digest, "reject" if rejects else "approve", name, "seen", key)
        if forges:
            decision = replace(decision, public=_KEYS[name].public)
        else:
            self.people.signed.add(decision)
        self._tally(decision, forges)

    def _tally(self, decision: Decision, forges: bool) -> None:
        try:
            self.network.operate("decide", decision)
        except SafetyError:
            self.network.tally["forged decisions refused" if forges else "decisions refused"] += 1
        else:
            self.network.tally[f"decisions to {decision.answer}"] += 1

    def _promote(self, sweep: str, champion: Champion, request: Request) -> None:
        digest = request.digest
        self.number += 1
        if self.rng.random() < CHEATS:
            champion, digest = self._cheat(champion, digest)
        try:
            key = f"promotion-{self.number}"
            # what its parent scored as it was promoted itself
            old = NEW if champion.parent else OLD
            verdict = self.network.ask(None, "promote", sweep, key, old, NEW, "max", champion, digest)
        except SafetyError:
            return
        self.network.tally["champions promoted"] += isinstance(verdict, Allow)

    def _cheat(self, champion: Champion, digest: str) -> tuple[Champion, str]:
        """Another artifact, parent, generation, evidence or training; another's approval; or none."""
        other = self.rng.choice(self.past)
        trained = {"train_gflop": champion.train_gflop + 1}
        ground: dict[str, Any] = {"evidence": "another"} if self.number % 2 else trained
        return self.rng.choice(
            [
                (replace(champion, artifact="exchanged"), digest),
                (replace(champion, parent="another"), digest),
                (replace(champion, generation=champion.generation + 1), digest),
                (replace(champion, **ground), digest),
                (champion, other[1].digest),
                (other[0], other[1].digest),
                (champion, ""),
            ]
        )
