"""The governor's identity, its death, and the kill switch, on a real Ray."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import ray

from safety import GovernorUnreachable, Ledger, LedgerError, Limits, limits_from_dict
from safety.actor import GovernorClient, connect, connect_to_any
from safety.checkpoints import CheckpointFile
from safety.drill import KINDS, run_drill
from safety.errors import CheckpointError, IdentityError
from safety.governor_process import NAME, NAMESPACE
from safety.kill_file import NAME as KILL_FILE
from safety.places import record_of, recorded_in
from tests.integration.conftest import BOUNDS, ledger_url
from tests.safety.fakes import request

pytestmark = pytest.mark.ray


@pytest.fixture
def governor(fresh_governor: None, tmp_path: Path) -> GovernorClient:
    return connect(ledger_url(tmp_path))


def limits() -> Limits:
    return limits_from_dict({"bounds": BOUNDS})


class Impostor:
    """Has the governor's name, and says yes to everything."""

    def __init__(self, url: str, public: str) -> None:
        self._about = url, public

    def about(self) -> tuple[str, str]:
        return self._about

    def ask(self, question: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        return b"yes", bytes(64)


@pytest.fixture
def usurped(governor: GovernorClient, tmp_path: Path) -> Iterator[GovernorClient]:
    """A client of a governor that somebody has ended, to take its name."""
    ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            actor = ray.remote(Impostor).options(name=NAME, namespace=NAMESPACE, num_cpus=0)
            taken = actor.remote(ledger_url(tmp_path), governor.public)
            ray.get(taken.about.remote())  # its process takes seconds to start on a busy machine
            break
        except ValueError:  # its name is not free yet
            time.sleep(0.1)
    yield governor
    ray.kill(taken)


def test_another_actor_that_takes_the_governors_name_is_refused(usurped: GovernorClient, tmp_path: Path):
    with pytest.raises(IdentityError, match="another process has its name"):
        usurped.open_sweep("s", limits())
    for reach in (connect, connect_to_any):
        with pytest.raises(IdentityError, match="another process has its name"):
            reach(ledger_url(tmp_path))


def test_a_governor_with_another_key_than_the_pinned_one_is_refused(governor: GovernorClient, tmp_path: Path):
    with pytest.raises(IdentityError, match="isn't signed by its key 0000"):
        connect(ledger_url(tmp_path), key="0" * 64)
    assert connect(ledger_url(tmp_path), key=governor.public).public == governor.public


def pid_of_governor() -> int:
    (found,) = (
        process.pid for process in psutil.process_iter(["name"]) if "GovernorActor" in process.info["name"]
        and process.ppid() in {child.pid for child in psutil.Process().children(recursive=True)}
    )  # fmt: skip
    return int(found)


def test_a_governor_that_is_killed_comes_back_with_what_it_had_committed(
    governor: GovernorClient, tmp_path: Path
):
    governor.open_sweep("s", limits())
    governor.admit(request("s/1", params=100, forward_flops=1, memory_bytes=1))
    grant = governor.activate("s/1", "d1", "w1", None)
    os.kill(pid_of_governor(), signal.SIGKILL)
    assert governor.renew(grant.lease, grant.fence) == 15_000
    again = governor.activate("s/1", "d1", "w1", None)
    assert (again.lease, again.fence) == (grant.lease, grant.fence)


def test_a_governor_that_was_ended_for_good_is_started_again_by_whoever_needs_it(governor: GovernorClient):
    governor.open_sweep("s", limits())
    ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))
    assert governor.state("s") == "open"


def test_a_governor_that_stands_still_gives_no_answer_and_goes_on_afterwards(governor: GovernorClient):
    governor.open_sweep("s", limits())
    hasty = GovernorClient(governor._home, governor.public, governor._handle, answer_seconds=1.0)
    pid = pid_of_governor()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(GovernorUnreachable, match=r"no answer to state within 1.0 s"):
            hasty.state("s")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert governor.state("s") == "open"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_governor_does_not_wait_behind_busy_drivers(governor: GovernorClient):
    governor.open_sweep("s", limits())
    pid = pid_of_governor()
    threads = {int(thread) for thread in os.listdir(f"/proc/{pid}/task")}
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {0}


@pytest.mark.alone
def test_a_file_beside_the_ledger_kills(governor: GovernorClient, tmp_path: Path):
    governor.open_sweep("s", limits())
    (Path(ledger_url(tmp_path).removeprefix("sqlite:///")).parent / KILL_FILE).write_text("smoke")
    until = time.monotonic() + 2
    while governor.state("s") != "killed" and time.monotonic() < until:
        time.sleep(0.05)
    assert governor.status("s").reason == "smoke"
    with pytest.raises(LedgerError, match="killed: smoke"):
        governor.open_sweep("t", limits())


@pytest.mark.alone
def test_a_drill_ends_every_canary_within_its_target_and_no_other_sweep(
    governor: GovernorClient, tmp_path: Path
):
    governor.open_sweep("s", limits())
    canaries = run_drill(governor, "ann", target_ms=4000)
    assert {canary.kind for canary in canaries} == set(KINDS)
    assert all(canary.is_in_time(4000) for canary in canaries), canaries
    assert governor.state("s") == "open"
    ledger = Ledger(ledger_url(tmp_path))
    assert [entry.kind for _, entry, _ in ledger.audit()].count("drill") == len(KINDS)
    ledger.close()


def test_a_drill_that_misses_its_target_lets_no_sweep_begin(governor: GovernorClient):
    canaries = run_drill(governor, "ann", target_ms=1)
    assert not any(canary.is_in_time(1) for canary in canaries)
    with pytest.raises(LedgerError, match="the last kill drill missed its target"):
        governor.open_sweep("s", limits())


def test_a_governor_that_starts_again_on_a_ledger_whose_tail_was_cut_admits_nothing(
    governor: GovernorClient, tmp_path: Path
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    governor.sign_into([elsewhere])
    governor.open_sweep("s", limits())
    governor.admit(request("s/1", params=100, forward_flops=1, memory_bytes=1))
    governor.freeze("s", "odd")
    place = CheckpointFile(elsewhere, "ledger.db", is_there=True)
    until = time.monotonic() + 10
    while not place.read().newest and time.monotonic() < until:
        time.sleep(0.05)
    ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection, connection:
        connection.execute("DELETE FROM audit WHERE seq > 2")
        connection.execute("UPDATE sweeps SET state = 'open', reason = ''")
    (tmp_path / "checkpoints").mkdir()
    record_of(ledger_url(tmp_path), tmp_path).write_text(f"{elsewhere}\n")
    for ask in (lambda: governor.state("s"), lambda: governor.open_sweep("t", limits())):
        with pytest.raises(LedgerError, match=r"row 3 of the audit is gone, .*; nothing is admitted"):
            ask()
    with pytest.raises(LedgerError, match="row 3 of the audit is gone"):
        connect(ledger_url(tmp_path))


def test_a_second_driver_adds_its_folder_and_one_that_cannot_be_used_is_refused(
    governor: GovernorClient, tmp_path: Path
):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        connect(ledger_url(tmp_path), checkpoints=[folder])
    with pytest.raises(CheckpointError, match="no such folder on the governor's host"):
        connect_to_any(ledger_url(tmp_path), checkpoints=[tmp_path / "third"])
    assert recorded_in(ledger_url(tmp_path), tmp_path) == folders
