"""Three hosts with a network of their own, a real Ray over them, and what may break there.

The sweep goes on through all of it; each test needs no more than that its workers live.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench import disk_faults, mishaps
from bench.beating import Worker, last_beat
from bench.hosts import cluster, network, obstacle
from bench.mishaps import Deaths, Sweeps, eventually
from safety import Budget, Lease, LeaseLost, Ledger, Usage, leases
from safety.audit import Entry

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.timeout(280)]

LEASE, GRACE = 3, 2
# a moment to be scheduled on a busy machine
SLACK = 0.5
T = LEASE + GRACE
GFLOP_OF_A_TRIAL = 100_000
LEDGER_BYTES = 8_000_000


@dataclass(kw_only=True)
class Hosts(Sweeps):
    """Sweeps on a cluster of three hosts, with the ledger on a small disk."""

    latencies: dict[str, float] = field(default_factory=dict)

    @property
    def disk(self) -> Path:
        return self.ledger.parent

    def note(self, fault: str, found: Deaths, within: float) -> Deaths:
        self.latencies[fault] = round(max(found.seconds, self.latencies.get(fault, 0)), 2)
        assert found.beat_seconds <= within + SLACK
        assert found.seconds <= T + SLACK
        return found

    @contextmanager
    def opened(self) -> Iterator[Ledger]:
        ledger = Ledger(f"sqlite:///{self.ledger}")
        try:
            yield ledger
        finally:
            ledger.close()

    def lease_of(self, worker: Worker) -> Lease:
        """The lease that a worker holds or held."""
        with self.opened() as ledger, ledger._transaction() as connection:
            query = "SELECT trial FROM leases WHERE holder = ? ORDER BY id DESC"
            holder = f"{worker.pid}@{worker.address}"
            trial = connection.exec_driver_sql(query, (holder,)).scalar_one()
            by_holder = {lease.holder: lease for lease in leases.attempts(connection, trial)}
            return by_holder[holder]

    def budget(self, resource: str) -> Budget:
        with self.opened() as ledger:
            budgets = ledger.budgets(self.runs[-1].settings.sweep)
        return next(b for b in budgets if b.resource == resource and b.scope != "cluster")

    def entries(self) -> list[Entry]:
        with self.opened() as ledger:
            return [entry for _, entry, _ in ledger.audit()]

    def hold_is_spent(self, worker: Worker) -> Lease:
        """What a dead worker's lease held is held until its deadline and grace are over, then spent whole."""
        held, in_budget = self.held_by(self.lease_of(worker)), self.budget("train_gflop").held
        # the lease is looked at after its budget: the governor may end it between the two
        while (lease := self.lease_of(worker)).state == "active":
            assert in_budget >= held
            with self.opened() as ledger:
                ledger.reap()
            in_budget = self.budget("train_gflop").held
        looked = time.monotonic()
        assert lease.state == "forfeited"
        assert looked * 1000 >= lease.deadline_ms + GRACE * 1000
        assert self.spent_of(lease) == held
        return lease

    def held_by(self, lease: Lease) -> int:
        """The whole price of its trial, or what a lost attempt before it has not paid of that."""
        (reserved,) = [e for e in self.entries() if e.kind == "reserve" and e.key == lease.key]
        return GFLOP_OF_A_TRIAL - int(json.loads(reserved.detail).get("credit", {}).get("train_gflop", 0))

    def spent_of(self, lease: Lease) -> int:
        forfeits = [e for e in self.entries() if e.kind == "forfeit" and e.key == lease.key]
        (only,) = forfeits  # once, not twice
        return int(json.loads(only.detail)["used"]["train_gflop"])


@pytest.fixture(scope="module")
def hosts(request: pytest.FixtureRequest) -> Iterator[Hosts]:
    reason = obstacle()
    if reason:
        pytest.skip(f"needs hosts of its own: {reason}")
    with network(3) as made, small_disk(Path(f"/tmp/{made[0].space}-ledger")) as disk, cluster(made) as ray:
        ledger = disk / "ledger.db"
        found = Hosts(cluster=ray, ledger=ledger, lease_seconds=LEASE, grace_seconds=GRACE)
        yield found
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    told = json.dumps({"lease_s": LEASE, "grace_s": GRACE, "dead_after_s": found.latencies})
    reporter.write_line(f"\nhosts: {told}")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of a few megabytes; mounted before a host is used, so that all of them see it."""
    folder.mkdir(mode=0o700)
    options = f"size={LEDGER_BYTES}"
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()


def granted(entries: list[Entry]) -> int:
    return sum(entry.kind in ("reserve", "activate") for entry in entries)


def test_nothing_of_a_killed_workers_hold_returns_before_its_deadline_and_grace(hosts: Hosts):
    run, host = hosts.all_beat(), hosts.cluster.hosts[1]
    died = hosts.note("worker SIGKILL", mishaps.kill_worker(run, host, T + SLACK), LEASE)
    hosts.hold_is_spent(died.workers[0])


def test_a_worker_that_is_stuck_in_c_code_and_ignores_signals_dies_with_its_lease(hosts: Hosts):
    died = hosts.note(
        "stuck in C", mishaps.stick_worker(hosts.run(), hosts.cluster.hosts[2], T + SLACK), LEASE
    )
    hosts.hold_is_spent(died.workers[0])


def test_a_worker_that_stood_still_past_its_lease_finds_its_hold_spent_and_its_fence_stale(hosts: Hosts):
    run, host = hosts.run(), hosts.cluster.head
    run.wait_for(1, host)
    before = hosts.lease_of(run.alive(host)[0])
    died = hosts.note("worker SIGSTOP", mishaps.stop_worker(run, host, T + SLACK), LEASE)
    hosts.hold_is_spent(died.workers[0])
    spent = hosts.budget("train_gflop").spent
    with hosts.opened() as ledger, pytest.raises(LeaseLost, match=f"fence {before.fence} is stale"):
        ledger.settle(before.id, before.fence, Usage(lease=before.id))
    assert hosts.budget("train_gflop").spent == spent


def test_a_worker_whose_raylet_stands_still_dies_with_its_lease(hosts: Hosts):
    run, host = hosts.run(), hosts.cluster.hosts[1]
    died = hosts.note("raylet SIGSTOP", mishaps.stop_raylet(run, host, T + SLACK), LEASE)
    hosts.hold_is_spent(died.workers[0])


def test_a_host_that_is_cut_off_has_no_workers_and_the_others_go_on(hosts: Hosts):
    run, host = hosts.all_beat(), hosts.cluster.hosts[2]
    (doomed,) = run.alive(host)
    others = [worker for worker in run.alive() if worker != doomed]
    with mishaps.cut_off(host):
        hosts.note("host cut off", mishaps.deaths(run, [doomed], lambda: None, T + SLACK), LEASE)
        hosts.hold_is_spent(doomed)
        assert time.monotonic() - min(last_beat(run.folder, other.pid) for other in others) < 2
        assert run.driver.poll() is None
    hosts.all_beat()
    reserved = {entry.key.partition("#")[0] for entry in hosts.entries() if entry.kind == "reserve"}
    assert hosts.budget("trials").spent + hosts.budget("trials").held == len(reserved)
    assert hosts.spent_of(hosts.lease_of(doomed)) == hosts.held_by(hosts.lease_of(doomed))


def test_while_the_governor_stands_still_all_workers_die_and_none_begins(hosts: Hosts):
    run = hosts.all_beat()
    before = len(hosts.entries())
    doomed = run.alive()
    with mishaps.standing_still(hosts.cluster.governor()):
        hosts.note("governor SIGSTOP", mishaps.deaths(run, doomed, lambda: None, T + SLACK), LEASE)
        time.sleep(GRACE)
        assert granted(hosts.entries()[before:]) == 0
    hosts.all_beat()
    for worker in doomed:
        assert hosts.spent_of(hosts.lease_of(worker)) == hosts.held_by(hosts.lease_of(worker))


@pytest.mark.parametrize("broken", [disk_faults.locked, disk_faults.full])
def test_while_the_ledger_can_not_be_written_workers_die_and_the_sweep_goes_on_when_it_can(
    hosts: Hosts, broken: Callable[[Path], object]
):
    run = hosts.all_beat()
    governor, doomed, before = hosts.cluster.governor(), run.alive(), len(hosts.entries())
    where = hosts.ledger if broken is disk_faults.locked else hosts.disk
    with broken(where):
        hosts.note(f"ledger {broken.__name__}", mishaps.deaths(run, doomed, lambda: None, T + SLACK), LEASE)
        time.sleep(10 if broken is disk_faults.locked else GRACE)  # a question waits for 10 s
        assert run.driver.poll() is None
    begun = len(hosts.entries())
    hosts.all_beat()
    assert hosts.cluster.governor() == governor
    assert granted(hosts.entries()[before:begun]) == 0


def test_a_governor_that_starts_again_while_its_ledger_is_read_only_admits_nothing_until_it_is_not(
    hosts: Hosts,
):
    run = hosts.all_beat()
    governor, doomed, before = hosts.cluster.governor(), run.alive(), len(hosts.entries())
    with disk_faults.read_only(hosts.ledger):
        died = mishaps.deaths(run, doomed, lambda: os.kill(governor, signal.SIGKILL), T + SLACK)
        hosts.note("ledger read-only", died, LEASE)
        time.sleep(GRACE)
        assert run.driver.poll() is None
        writable_again = time.time() * 1000
    hosts.all_beat()
    assert hosts.cluster.governor() != governor
    entries = hosts.entries()[before:]
    assert granted([entry for entry in entries if entry.at_ms < writable_again]) == 0


def test_a_worker_whose_raylet_is_killed_dies_with_its_lease(hosts: Hosts):
    run, host = hosts.run(), hosts.cluster.hosts[1]
    died = hosts.note("raylet SIGKILL", mishaps.kill_raylet(run, host, T + SLACK), LEASE)
    hosts.hold_is_spent(died.workers[0])
    assert run.driver.poll() is None
    host.kill()
    assert hosts.cluster.join(host).wait(60) == 0


def test_what_is_spent_stays_spent_when_the_control_store_is_killed_and_the_cluster_started_again(
    hosts: Hosts,
):
    run = hosts.run()
    run.wait_for(2)
    mishaps.kill_gcs(hosts.cluster)
    with hosts.opened() as ledger:
        # nobody else can tell them any more
        killed = mishaps.deaths(run, run.alive(), lambda: ledger.kill("a test says so", "a test"), T + SLACK)
        hosts.note("kill switch, GCS SIGKILL", killed, T + SLACK)
        for host in hosts.cluster.hosts:
            host.kill()
        run.driver.wait(60)
        spent, held = hosts.budget("train_gflop").spent, hosts.budget("train_gflop").held
        ledger.unkill("a test says so", "a test")
        hosts.cluster.start()
        eventually(
            lambda: ledger.reap() + 1 and not ledger.open_leases(run.settings.sweep), "the leases' end"
        )
    assert hosts.budget("train_gflop").spent == spent + held


def test_workers_of_a_killed_driver_die_and_their_holds_are_spent(hosts: Hosts):
    run = hosts.all_beat()
    died = hosts.note("driver SIGKILL", mishaps.kill_driver(run, T + SLACK), LEASE)
    for worker in died.workers:
        hosts.hold_is_spent(worker)
