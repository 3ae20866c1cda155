"""What may go wrong in a rehearsal, as plain data: how often each thing does."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """What may happen to a call to the governor: probabilities from 0 to 1.

    Attributes:
        unheard: it does not arrive.
        late: one that did not arrive does so later, when nobody waits for it any more.
        reply_lost: it takes effect, and its reply is lost.
        failing: the ledger's database fails it.
    """

    unheard: float = 0.0
    late: float = 0.5
    reply_lost: float = 0.0
    failing: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryWorker:
    """What happens to a worker: mean simulated seconds between two times, for one worker; 0 is never."""

    worker_dies: float = 0.0
    worker_stops: float = 0.0
    node_is_cut_off: float = 0.0
    twin_begins: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EveryCluster:
    """What happens to a cluster: mean simulated seconds between two times; 0 is never."""

    driver_dies: float = 0.0
    sweep_closes: float = 0.0
    governor_crashes: float = 0.0
    governor_crashes_in_a_call: float = 0.0
    host_reboots: float = 0.0
    wall_clock_is_set: float = 0.0
    database_is_away: float = 0.0
    switch_is_thrown: float = 0.0
    sweep_is_frozen: float = 0.0
    limits_are_tightened: float = 0.0
    looser_limits_are_asked: float = 0.0
    champion_is_proposed: float = 0.0
    champion_is_rolled_back: float = 0.0
    lineage_is_shut_down: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A rehearsal.

    Attributes:
        calls: what happens to calls.
        every_worker: what happens to workers.
        every_cluster: what happens to the cluster.
        lies: probability that a claim, a model, a report or a usage is not what it should be.
        runaway: whether candidates improve, or grow, beyond all bounds.
        tight: whether the cluster's budgets are soon used up.
    """

    calls: Calls = field(default_factory=Calls)
    every_worker: EveryWorker = field(default_factory=EveryWorker)
    every_cluster: EveryCluster = field(default_factory=EveryCluster)
    lies: float = 0.0
    runaway: bool = False
    tight: bool = False


_CRASHES = EveryCluster(driver_dies=40, governor_crashes=20, governor_crashes_in_a_call=20, sweep_closes=40)
_UNSTEADY = EveryWorker(worker_dies=60, worker_stops=60, node_is_cut_off=120, twin_begins=60)

SCENARIOS: dict[str, Scenario] = {
    "calm": Scenario(),
    "crowded": Scenario(tight=True, every_cluster=EveryCluster(sweep_closes=60)),
    "crashes": Scenario(
        every_worker=EveryWorker(worker_dies=30, worker_stops=60),
        every_cluster=_CRASHES,
    ),
    "partitions": Scenario(
        calls=Calls(unheard=0.05),
        every_worker=EveryWorker(node_is_cut_off=30, worker_stops=40, twin_begins=30),
    ),
    "lost_replies": Scenario(calls=Calls(unheard=0.1, late=0.8, reply_lost=0.15)),
    "broken_database": Scenario(calls=Calls(failing=0.2), every_cluster=EveryCluster(database_is_away=20)),
    "liars": Scenario(lies=0.4),
    "killed": Scenario(
        every_worker=_UNSTEADY,
        every_cluster=EveryCluster(switch_is_thrown=15, governor_crashes=20, sweep_is_frozen=60),
    ),
    "reboot": Scenario(
        every_worker=_UNSTEADY,
        every_cluster=EveryCluster(host_reboots=15, wall_clock_is_set=10, driver_dies=60),
    ),
    "tightened": Scenario(
        tight=True,
        every_cluster=EveryCluster(limits_are_tightened=10, looser_limits_are_asked=15, sweep_closes=30),
    ),
    "runaway": Scenario(runaway=True),
    "approvals": Scenario(
        calls=Calls(unheard=0.05, late=0.8, reply_lost=0.1, failing=0.02),
        every_cluster=EveryCluster(champion_is_proposed=1, governor_crashes=60, wall_clock_is_set=15),
    ),
    "emergencies": Scenario(
        calls=Calls(unheard=0.05, late=0.8, reply_lost=0.1, failing=0.02),
        every_worker=EveryWorker(worker_stops=60, node_is_cut_off=60),
        every_cluster=EveryCluster(
            champion_is_proposed=1,
            champion_is_rolled_back=4,
            lineage_is_shut_down=8,
            governor_crashes=60,
            governor_crashes_in_a_call=30,
            wall_clock_is_set=30,
        ),
    ),
    # much for a few workers, and what thousands of them meet within seconds
    "at_scale": Scenario(
        calls=Calls(unheard=0.03, reply_lost=0.03, failing=0.01),
        every_worker=EveryWorker(worker_dies=120, worker_stops=120, node_is_cut_off=240, twin_begins=240),
        every_cluster=EveryCluster(driver_dies=3, governor_crashes_in_a_call=10, sweep_closes=5),
        lies=0.1,
        runaway=True,
    ),
    "everything": Scenario(
        calls=Calls(unheard=0.03, reply_lost=0.03, failing=0.02),
        every_worker=EveryWorker(worker_dies=120, worker_stops=120, node_is_cut_off=240, twin_begins=120),
        every_cluster=EveryCluster(
            driver_dies=60,
            sweep_closes=60,
            governor_crashes=60,
            governor_crashes_in_a_call=60,
            host_reboots=90,
            wall_clock_is_set=60,
            database_is_away=90,
            switch_is_thrown=90,
            sweep_is_frozen=120,
            limits_are_tightened=120,
            looser_limits_are_asked=120,
            lineage_is_shut_down=120,
        ),
        lies=0.1,
        runaway=True,
        tight=True,
    ),
}
