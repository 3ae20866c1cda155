"""A rehearsal from its seed to its outcome; the same seed again is the same sequence of events."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from random import Random

from safety.endings import SWEEP_SILENCE_MS
from safety.ledger import Ledger
from safety.simulation.approvers import Approvers, with_approvers
from safety.simulation.candidates import Candidates, Course, limits
from safety.simulation.driver import Driver, Policy
from safety.simulation.emergencies import Responders
from safety.simulation.faults import Fate
from safety.simulation.invariants import Invariants, require_chain
from safety.simulation.network import Network, Node
from safety.simulation.scenarios import SCENARIOS, Scenario
from safety.simulation.storage import SharedMemory
from safety.simulation.timeline import Host, Timeline
from safety.simulation.violation import Violated
from safety.simulation.worker import Surroundings, Worker

WORKERS_PER_NODE = 4
# all rows are compared with the model so often, in events
COMPARED_EVERY = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to rehearse.

    Attributes:
        scenario: one of SCENARIOS.
        seed: of everything that happens.
        workers: processes that run trials, shared out over the sweeps.
        sweeps: drivers, each with a sweep.
        events: how many things happen.
    """

    scenario: str
    seed: int
    workers: int = 8
    sweeps: int = 2
    events: int = 100

    @property
    def options(self) -> str:
        """The plan as the command takes it."""
        return " ".join(f"--{name} {value}" for name, value in asdict(self).items()) + " --seeds 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a rehearsal.

    Attributes:
        events: how many things happened.
        simulated_ms: how long that took in simulated time.
        tally: how often each thing happened.
        digest: of all that happened, and of the audit: the same for the same plan.
        violation: the invariant that did not hold, in one line; "" where all did.
    """

    plan: Plan
    events: int
    simulated_ms: int
    tally: Counter[str]
    digest: str
    violation: str

    @property
    def told(self) -> str:
        """When which invariant did not hold, and the command that shows it again."""
        plan = self.plan
        place = f"{plan.scenario}, seed {plan.seed}, event {self.events}"
        return f"{place}: {self.violation}\nAgain: rsi-ray simulate {plan.options}"


class _World:
    """All that a rehearsal is made of; it lives until it is closed."""

    def __init__(self, plan: Plan, scenario: Scenario) -> None:
        self._storage = SharedMemory()
        self.timeline, self._rng = Timeline(), Random(f"{plan.scenario} {plan.seed}")
        host, holders = Host(self.timeline), dict[int, Worker]()
        # the ledger makes its tables before they can be watched
        Ledger(self._storage.url, host.clock()).close()
        self._storage.watch()
        self.invariants = Invariants(
            self._storage, host, lambda lease: lease in holders and holders[lease].may_compute
        )
        self.network = Network(self.timeline, self._rng, scenario.calls, self._storage, host, self.invariants)
        self._around = Surroundings(
            timeline=self.timeline, rng=self._rng, network=self.network, invariants=self.invariants,
            lies=scenario.lies, holders=holders,
        )  # fmt: skip
        self._people(plan, scenario)

    def _people(self, plan: Plan, scenario: Scenario) -> None:
        first = limits(plan.workers, tight=scenario.tight)
        if scenario.every_cluster.champion_is_proposed:
            first = with_approvers(first)
        policy = Policy(limits=first, first=first)
        courses = list(Course) if scenario.runaway else [Course.STEADY]
        drivers = [
            Driver(f"s{place}", self._around, policy, Candidates.on(courses[place % len(courses)], self._rng))
            for place in range(plan.sweeps)
        ]
        nodes = [Node() for _ in range(-(-plan.workers // WORKERS_PER_NODE))]
        for place in range(plan.workers):
            boss = drivers[place % plan.sweeps]
            worker = Worker(f"w{place}", nodes[place // WORKERS_PER_NODE], self._around, boss)
            boss.workers.append(worker)
        for driver in drivers:
            driver.start()
        workers = [worker for driver in drivers for worker in driver.workers]
        approvers = Approvers(
            timeline=self.timeline, rng=self._rng, network=self.network, people=self.invariants.people,
            drivers=drivers,
        )  # fmt: skip
        responders = Responders(
            timeline=self.timeline, rng=self._rng, network=self.network, shutdowns=self.invariants.shutdowns,
            approvers=approvers, drivers=drivers,
        )  # fmt: skip
        Fate(
            timeline=self.timeline, rng=self._rng, network=self.network, policy=policy, drivers=drivers,
            workers=workers, approvers=approvers, responders=responders,
        ).plan(scenario)  # fmt: skip

    def step(self) -> None:
        """Do what happens next."""
        what, act = self.timeline.advance()
        self.network.trace.update(f"{self.timeline.now} {what}\n".encode())
        act()

    def drain(self) -> None:
        """All processes but the operator are gone: in the end nothing is held any more.

        Raises:
            Violated: something is.
        """
        self.network.reap()  # what began before a reboot gets a full term first
        self.timeline.now += SWEEP_SILENCE_MS + 1
        self.network.reap()
        self.invariants.everything()
        self.invariants.nothing_is_held()

    def close(self) -> None:
        self.network.close()
        self._storage.close()


def rehearse(plan: Plan) -> Outcome:
    """Do what a plan says, and check every invariant after every event.

    Raises:
        KeyError: there is no such scenario.
    """
    with closing(_World(plan, SCENARIOS[plan.scenario])) as world:
        violation, chain, event = "", "", 0
        try:
            for event in range(1, plan.events + 1):
                world.step()
                if event % COMPARED_EVERY == 0:
                    world.invariants.everything()
            world.drain()
            chain = require_chain(world.network.calm_down())
        except Violated as error:
            violation = str(error)
        world.network.trace.update(chain.encode())
        return Outcome(
            plan=plan, events=event, simulated_ms=world.timeline.now, tally=world.network.tally,
            digest=world.network.trace.hexdigest(), violation=violation,
        )  # fmt: skip
