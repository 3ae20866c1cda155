"""Which trials of Ray Tune run on a cluster without a lease of its ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from safety.governance import sweep_of_marker
from safety.verdict import Deny

RULE = "ungoverned"


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneActor:
    """A live actor that Tune has started for a trial, or that a trial has started.

    Attributes:
        actor: its id.
        class_name: of its Python class; a function's is `ImplicitFunc`.
        says: what it calls itself by its `__repr__`; "" where its class has none.
        pid: of its process.
        node: address of its host.
        job: that has started it.
        group: its placement group, which a trial shares with what it starts; "" for none.
    """

    actor: str
    class_name: str
    says: str
    pid: int
    node: str
    job: str
    group: str = ""

    @property
    def holder(self) -> str:
        """As the leases of its process name it."""
        return f"{self.pid}@{self.node}"


def ungoverned(
    actors: Iterable[TuneActor], holders: Collection[str], sweeps: Collection[str]
) -> tuple[TuneActor, ...]:
    """The actors that nothing in the ledger speaks for.

    A governed worker holds a lease, or says which sweep it works for: between two trials it holds none, and
    its keeper lets it compute nothing. What a governed trial starts is in its placement group.

    Args:
        actors: of the cluster.
        holders: of the open leases, as `pid@address`.
        sweeps: names of those that are not closed.
    """
    found = tuple(actors)
    governed = [one for one in found if one.holder in holders or sweep_of_marker(one.says) in sweeps]
    known = {one.actor for one in governed}
    groups = {one.group for one in governed if one.group}
    return tuple(one for one in found if one.actor not in known and one.group not in groups)


def incident(actor: TuneActor) -> Deny:
    """What the audit says of one."""
    name = actor.says or actor.class_name
    return Deny(
        RULE,
        f"{name}: a trial of Ray Tune without a lease, actor {actor.actor} of job {actor.job}, "
        f"process {actor.pid} on {actor.node}",
    )
