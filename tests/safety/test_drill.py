"""A kill drill whose canaries are small processes, on a Ray in this process."""

import os
import signal
import subprocess
import threading
import time

import pytest

from safety import LedgerError, SafetyError, drill
from safety.actor import NAMESPACE
from safety.drill import KINDS, CanaryTrial, Observer, run_drill
from safety.drills import Canary
from safety.tuner import GovernedTuner
from tests.safety.fake_ray import FakeRay
from tests.safety.fakes import kinds, limits


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setattr("safety.drill.ray", fake)
    yield fake
    fake.close()


class Canaries:
    """In place of Tune: starts a process for each canary, and kills them when the sweep is frozen.

    Attributes:
        immortal: kinds that outlive the switch.
        unborn: kinds that are never started.
        broken: what is raised instead.
        on: the options of each one's placement.
    """

    def __init__(self, ray, ledger):
        self.ray, self.ledger = ray, ledger
        self.immortal, self.unborn, self.broken = set(), set(), None
        self.processes, self.on = [], []

    def fit(self, tuner):
        if self.broken:
            raise self.broken
        limits = tuner._open(tuner.governor())
        assert limits.bounds.max_params == 1
        dying = [
            self.start(tuner, canary) for canary in self.asked(tuner) if canary["kind"] not in self.unborn
        ]
        while self.ledger.sweep(tuner.sweep).state == "open":
            time.sleep(0.002)
        for kind, process in dying:
            if kind not in self.immortal:
                process.kill()

    def asked(self, tuner):
        return tuner._internal.param_space["canary"]["grid_search"]

    def start(self, tuner, canary):
        process = subprocess.Popen(["sleep", "1000"])
        self.processes.append(process)
        placement = tuner._trained.default_resource_request({"canary": canary})
        self.on.append((canary["node"], placement.bundles))
        observer = self.ray.get_actor(canary["observer"], NAMESPACE)
        self.ray.get(observer.enroll.remote(canary["kind"], process.pid))
        return canary["kind"], process


@pytest.fixture
def canaries(ray, ledger, monkeypatch):
    playing = Canaries(ray, ledger)
    monkeypatch.setattr(GovernedTuner, "fit", lambda tuner: playing.fit(tuner))
    monkeypatch.setattr(drill, "READY_SECONDS", 0)
    yield playing
    for process in playing.processes:
        process.kill()
        process.wait()


# --- the drill


def test_every_canary_of_every_live_node_is_killed_and_written_down(ray, canaries, governor, ledger):
    found = run_drill(governor, "ann", target_ms=30_000)
    wanted = [(node, kind) for node in ("10.0.0.1", "10.0.0.2") for kind in sorted(KINDS)]
    assert [(canary.node, canary.kind) for canary in found] == wanted
    assert all(canary.is_in_time(30_000) for canary in found), found
    assert kinds(ledger).count("drill") == len(wanted)
    assert ledger.sweep("s").state == "open"


def test_what_a_drill_starts_lies_on_its_node_and_is_gone_afterwards(ray, canaries, governor):
    run_drill(governor, "ann", target_ms=30_000)
    assert all(bundles == [{f"node:{node}": 0.001}] for node, bundles in canaries.on)
    assert [options["resources"] for options in ray.options] == [
        {"node:10.0.0.1": 0.001},
        {"node:10.0.0.2": 0.001},
    ]
    assert ray.actors == {}


def test_a_canary_that_outlives_the_wait_is_written_down_as_alive(canaries, governor, ledger, monkeypatch):
    monkeypatch.setattr(drill, "DEATH_SECONDS", 0.2)
    canaries.immortal = {"deaf"}
    found = run_drill(governor, "ann", target_ms=30_000)
    assert {canary.kind for canary in found if canary.latency_ms is None} == {"deaf"}
    with pytest.raises(LedgerError, match=r"deaf on 10.0.0.1: not dead"):
        ledger.open_sweep("t", limits())


def test_a_drill_may_begin_after_one_that_failed(canaries, governor, ledger):
    ledger.record_drill([Canary(node="10.0.0.1", kind="deaf", latency_ms=None)], 2000, "ann")
    run_drill(governor, "ann", target_ms=30_000)
    ledger.open_sweep("t", limits())


def test_canaries_that_can_not_be_started_are_told_and_nothing_is_written_down(
    ray, canaries, governor, ledger
):
    canaries.broken = RuntimeError("no such node")
    with pytest.raises(SafetyError, match="drill: its canaries could not be started: no such node"):
        run_drill(governor, "ann")
    assert "drill" not in kinds(ledger)
    assert ray.actors == {}


def test_canaries_that_do_not_start_in_time_are_told_and_those_that_did_are_killed(
    canaries, governor, ledger, monkeypatch
):
    monkeypatch.setattr(drill, "START_SECONDS", 0.2)
    canaries.unborn = {"stuck"}
    with pytest.raises(SafetyError, match=r"drill: its canaries did not start within 0.2 s"):
        run_drill(governor, "ann")
    assert {process.wait(5) for process in canaries.processes} == {-signal.SIGKILL}
    assert "drill" not in kinds(ledger)


# --- who watches


def test_a_dead_process_is_gone_though_nobody_has_reaped_it_yet(ray):
    process = subprocess.Popen(["sleep", "1000"])
    try:
        observer = ray.remote(Observer).remote()
        ray.get(observer.enroll.remote("deaf", process.pid))
        gone = observer.gone.remote("deaf")
        assert not ray.wait([gone], 0.05)[0]
        process.kill()
        ray.get(gone, 5)
        assert process.returncode is None
    finally:
        process.kill()
        process.wait()
    ray.get(observer.gone.remote("deaf"), 5)


# --- the canaries


def test_a_canary_enrols_once_and_is_what_it_is_in_every_step(ray, monkeypatch, tmp_path):
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path))
    heard = []

    class Listening:
        def enroll(self, *who):
            heard.append(who)

    ray.remote(Listening).options(name="o", namespace=NAMESPACE).remote()
    monkeypatch.setitem(KINDS, "ordinary", lambda: heard.append("was"))
    trial = CanaryTrial({"canary": {"observer": "o", "kind": "ordinary"}})
    trial.train()
    trial.train()
    assert heard == [("ordinary", os.getpid()), "was", "was"]
    trial.stop()


def test_an_ordinary_canary_comes_back_and_lets_others_run():
    assert len(gaps_of_another_thread(KINDS["ordinary"])) > 5


def test_a_stuck_canary_lets_no_other_thread_run(monkeypatch):
    monkeypatch.setattr(drill, "STUCK_SECONDS", 0.1)
    assert max(gaps_of_another_thread(KINDS["stuck"])) > 0.09


def gaps_of_another_thread(act):
    """How long, in seconds, another thread did not run each time while something did."""
    gaps, began, over = [], threading.Event(), threading.Event()

    def run():
        last = time.monotonic()
        while not over.is_set():
            time.sleep(0.001)
            began.set()
            gaps.append(time.monotonic() - last)
            last += gaps[-1]

    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    act()
    over.set()
    thread.join()
    return gaps


def test_a_deaf_canary_outlives_every_signal_and_exception_but_a_kill():
    child = os.fork()
    if child == 0:
        KINDS["deaf"]()
    until = time.monotonic() + 10
    while not ignores(child, signal.SIGTERM) and time.monotonic() < until:
        time.sleep(0.005)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        os.kill(child, number)
    time.sleep(0.05)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def ignores(pid, number):
    with open(f"/proc/{pid}/status") as status:
        (mask,) = (line.split()[1] for line in status if line.startswith("SigIgn:"))
    return bool(int(mask, 16) >> (number - 1) & 1)
