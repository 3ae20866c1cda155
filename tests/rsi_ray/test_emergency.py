"""Emergency shutdown from the freeze to the alert, and on from where a crash has left it."""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rsi_ray.alerts import AlertsConfig, keep, kept
from rsi_ray.emergency import Ports, complete, shut_down
from rsi_ray.log_tail import log_tail
from safety import Allow, ApprovalMissing, Champion, Deny, DocumentError, Ledger, LedgerError, audit
from safety.emergency import pending
from tests.rsi_ray.shutdowns import LINEAGE, Store, ports, two_champions
from tests.safety.approvers import answer, approval
from tests.safety.fakes import kinds, limits, request
from tests.safety.test_alert import http_server, url_of

ONCE = (
    "shut_down", "shut_down_revoked", "shut_down_saved", "rollback", "shut_down_reverted",
    "shut_down_alerted",
)  # fmt: skip
SAVED = ["audit.jsonl", "champion.safetensors", "history.json", "incident.json", "log.txt", "state.json"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "champions")


@pytest.fixture
def artifacts(ledger: Ledger, store: Store) -> list[str]:
    return two_champions(ledger, store)


def folder_of(storage: Path) -> Path:
    (folder,) = [path for path in (storage / "incidents").iterdir() if path.is_dir()]
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_shutdown_freezes_saves_reverts_and_tells(
    ledger: Ledger, store: Store, artifacts: list[str], tmp_path: Path
):
    assert ledger.reserve(request("x/1", sweep="x")) == Allow()
    with http_server() as server:
        done = shut_down(
            ports(ledger, tmp_path, store, AlertsConfig(webhook=url_of(server), seconds=0.0)), LINEAGE, "fire"
        )
    assert done.problems == ()
    assert pending(done.incident) == ("acknowledged", "released")
    assert (ledger.sweep("x").state, ledger.lease("x/1").state) == ("frozen", "void")  # type: ignore[union-attr]
    assert store.current == artifacts[0]
    assert ledger.current_champion(LINEAGE).artifact == artifacts[0]  # type: ignore[union-attr]
    ((_, _, alert),) = server.taken
    assert [alert[name] for name in ("incident", "lineage", "reason", "problems", "ledger")] == [
        1, LINEAGE, "fire", [], "the ledger",
    ]  # fmt: skip
    assert alert["done"] == ["frozen", "revoked", "saved", "reverted"]
    assert alert["acknowledge"] == "rsi-ray incidents acknowledge 1 --reason WHY"


def test_what_is_saved_is_the_state_from_before_the_revert(
    ledger: Ledger, store: Store, artifacts: list[str], tmp_path: Path
):
    shut_down(ports(ledger, tmp_path, store), LINEAGE, "fire")
    folder = folder_of(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [*SAVED, "versions.json"]
    manifest, state = read(folder / "incident.json"), read(folder / "state.json")
    assert (manifest["reason"], manifest["rule"], manifest["safe"]) == ("fire", "operator", artifacts[0])
    assert manifest["weights"]["sha256"] == artifacts[1]
    assert (folder / "champion.safetensors").read_bytes() == b"weights 2"
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert state["champion"]["artifact"] == artifacts[1]
    assert [one["key"] for one in state["promotions"]] == ["p1", "p2"]
    assert [one["rolled_back"] for one in state["promotions"]] == [False, False]
    assert read(folder / "history.json") == [{"generation": 1, "difference": "depth: 2 -> 4"}]
    assert (folder / "log.txt").read_text() == "a line\n"
    rows = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert rows[-1]["kind"] == "shut_down_revoked"
    assert [row["hash"] for row in rows] == [row_hash for _, _, row_hash in ledger.audit()[: len(rows)]]


@pytest.mark.parametrize(
    ("of", "method", "argument", "left"),
    [
        ("ledger", "shut_down", "", "revoked"),
        ("ledger", "revoke_leases", "", "saved"),
        ("ledger", "audit_page", "", "saved"),
        ("ledger", "take_step", "saved", "reverted"),
        ("ledger", "revert", "", "reverted"),
        ("store", "revert", "", "reverted"),
        ("ledger", "take_step", "reverted", "alerted"),
        ("ledger", "take_step", "alerted", "acknowledged"),
    ],
)
def test_a_process_that_is_killed_in_the_middle_is_followed_by_one_that_completes_each_step_once(
    ledger: Ledger, store: Store, artifacts: list[str], tmp_path: Path, of: str, method: str, argument: str,
    left: str,
):  # fmt: skip
    program = [sys.executable, "-m", "tests.rsi_ray.shutdowns", str(tmp_path), of, method, argument]
    assert subprocess.run(program, check=False, capture_output=True).returncode == -signal.SIGKILL
    (incident,) = ledger.incidents()
    assert pending(incident)[0] == left
    with pytest.raises(LedgerError, match="was shut down: fire"):
        ledger.open_sweep("z", ledger.sweep("x").limits, LINEAGE)
    done = shut_down(ports(ledger, tmp_path, store), LINEAGE, "once more")
    assert (done.problems, done.incident.reason) == ((), "fire")
    assert pending(done.incident) == ("acknowledged", "released")
    assert [kinds(ledger).count(kind) for kind in ONCE] == [1] * len(ONCE)
    assert store.current == artifacts[0]
    folder = folder_of(tmp_path)
    assert read(folder / "state.json")["champion"]["artifact"] == artifacts[1]
    assert (folder / "champion.safetensors").read_bytes() == b"weights 2"
    assert not list(folder.glob("*.partial"))
    assert audit.verify(ledger.audit()) is None


def test_a_sink_that_is_down_stops_nothing_is_audited_once_and_is_tried_until_somebody_acknowledges(
    ledger: Ledger, store: Store, artifacts: list[str], tmp_path: Path
):
    with http_server() as server:
        url = url_of(server)
    config = AlertsConfig(webhook=url, seconds=3_600.0, retry_seconds=1.0, longest_seconds=8.0)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if sum(waited) > 600:
            ledger.acknowledge(1, "heard it elsewhere", "ann")

    slow = replace(ports(ledger, tmp_path, store, config), monotonic=lambda: sum(waited), sleep=sleep)
    done = shut_down(slow, LINEAGE, "fire")
    assert pending(done.incident) == ("alerted", "released")
    assert store.current == artifacts[0]
    failed = [entry for _, entry, _ in ledger.audit() if entry.rule == "alert.webhook"]
    assert [(entry.kind, entry.key) for entry in failed] == [("incident", "incident-1")]
    assert 600 < sum(waited) < 602


def test_a_sink_that_comes_back_is_told_by_the_next_run(
    ledger: Ledger, store: Store, artifacts: list[str], tmp_path: Path
):
    with http_server() as server:
        port = server.server_port
    config = AlertsConfig(webhook=url_of(server), seconds=0.0)
    done = shut_down(ports(ledger, tmp_path, store, config), LINEAGE, "fire")
    assert "alerted" in pending(done.incident)
    with http_server(port) as server:
        done = complete(ports(ledger, tmp_path, store, config), done.incident)
    assert len(server.taken) == 1
    assert pending(done.incident) == ("acknowledged", "released")


def test_what_can_not_be_saved_is_told_and_audited_and_nothing_is_reverted_until_it_can(
    ledger: Ledger, store: Store, artifacts: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def broken() -> Any:
        raise RuntimeError("no history")

    with caplog.at_level(logging.CRITICAL):
        done = shut_down(replace(ports(ledger, tmp_path, store), history=broken), LINEAGE, "fire")
    assert done.problems == ("not saved: no history",)
    assert json.loads(caplog.records[-1].message)["problems"] == ["not saved: no history"]
    assert (store.current, ledger.sweep("x").state) == (artifacts[1], "frozen")
    assert ledger.audit()[-2][1].rule == "shut_down.saved"
    assert complete(ports(ledger, tmp_path, store), done.incident).problems == ()
    assert store.current == artifacts[0]


def test_what_was_saved_stays_as_it_was_first(
    ledger: Ledger, store: Store, artifacts: list[str], tmp_path: Path
):
    class Away:
        """Takes no step, as a ledger whose database is away."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger, name)

        def take_step(self, *_: Any) -> Any:
            raise LedgerError("away")

    assert shut_down(ports(Away(), tmp_path, store), LINEAGE, "fire").problems == ("not saved: away",)
    store.path(artifacts[1]).write_bytes(b"other weights")
    assert shut_down(ports(ledger, tmp_path, store), LINEAGE, "fire").problems == ()
    assert (folder_of(tmp_path) / "champion.safetensors").read_bytes() == b"weights 2"


@pytest.mark.parametrize("swapped", ["exchanged", "gone", "a link"])
def test_a_safe_version_that_is_not_what_was_promoted_is_not_reverted_to(
    ledger: Ledger, store: Store, artifacts: list[str], tmp_path: Path, swapped: str
):
    path = store.path(artifacts[0])
    before = path.read_bytes()
    path.unlink()
    if swapped == "exchanged":
        path.write_bytes(b"other weights")
    elif swapped == "a link":
        path.symlink_to(store.path(artifacts[1]))
    done = shut_down(ports(ledger, tmp_path, store), LINEAGE, "fire")
    assert len(done.problems) == 1
    assert done.problems[0].startswith("not reverted: ")
    ledger.acknowledge(1, "seen", "ann")
    with pytest.raises(LedgerError, match="it can't be released before it is reverted"):
        ledger.release(1, "why", "ann")
    path.unlink(missing_ok=True)
    path.write_bytes(before)
    assert complete(ports(ledger, tmp_path, store), done.incident).problems == ()


@pytest.mark.parametrize("swapped", ["exchanged", "gone", "a link"])
def test_weights_that_are_not_what_was_promoted_are_saved_as_what_they_are(
    ledger: Ledger, store: Store, artifacts: list[str], tmp_path: Path, swapped: str
):
    path = store.path(artifacts[1])
    path.unlink()
    if swapped == "exchanged":
        path.write_bytes(b"other weights")
    elif swapped == "a link":
        path.symlink_to(store.path(artifacts[0]))
    assert shut_down(ports(ledger, tmp_path, store), LINEAGE, "fire").problems == ()
    told = read(folder_of(tmp_path) / "incident.json")["weights"]["problem"]
    expected = f"the ledger has promoted {artifacts[1]}" if swapped == "exchanged" else str(path)
    assert expected in told


def test_workers_are_waited_for_while_their_leases_are_open_and_no_longer_than_that(
    ledger: Ledger, store: Store, artifacts: list[str], tmp_path: Path
):
    ledger.reserve(request("x/1", sweep="x"))
    grant = ledger.activate("x/1", "d1", "w1")
    waited: list[float] = []

    def patient(settles: bool) -> Ports:
        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if settles and len(waited) == 3:
                ledger.settle(grant.lease, grant.fence, grant.used(reports=1, elapsed_ms=1))

        of = ports(ledger, tmp_path, store)
        return replace(of, worker_seconds=2.0, monotonic=lambda: sum(waited), sleep=sleep)

    shut_down(patient(True), LINEAGE, "fire")
    assert len(waited) == 3
    assert read(folder_of(tmp_path) / "state.json")["open_leases"] == 0


def test_a_lineage_without_champions_is_shut_down_too(ledger: Ledger, store: Store, tmp_path: Path):
    ledger.open_sweep("s", limits(), "other")
    done = shut_down(ports(ledger, tmp_path, store), "other", "fire")
    assert (done.problems, done.incident.safe) == ((), "")
    told = read(folder_of(tmp_path) / "incident.json")["weights"]
    assert told == {"problem": "there is no file of a champion"}


def test_a_task_whose_score_accelerates_is_shut_down_and_goes_on_from_its_safe_version_when_people_release_it(
    ledger: Ledger, store: Store, tmp_path: Path
):
    safe, fast = two_champions(ledger, store, approval=approval("ann", "bob", "eve", quorum=2))
    third = Champion(artifact=store.add(3), parent=fast, generation=3, evidence="e", train_gflop=1)
    assert ledger.promote("x", "p3", 0.515, 0.54, champion=third).rule == "runaway"  # type: ignore[union-attr]
    with http_server() as down:
        port = down.server_port
    config = AlertsConfig(webhook=url_of(down), seconds=60.0, retry_seconds=0.05, longest_seconds=0.2)
    with ThreadPoolExecutor(1) as people:
        heard = people.submit(acknowledge_when_told, tmp_path, port)
        done = shut_down(ports(ledger, tmp_path, store, config), LINEAGE, "called again")
        alert = heard.result(60)
    assert (done.problems, pending(done.incident)) == ((), ("released",))
    assert [alert[name] for name in ("rule", "sweep", "lineage")] == ["runaway", "x", LINEAGE]
    assert [entry.rule for _, entry, _ in ledger.audit()].count("alert.webhook") == 1
    assert (store.current, ledger.current_champion(LINEAGE).artifact) == (safe, safe)  # type: ignore[union-attr]

    with pytest.raises(ApprovalMissing):
        ledger.release(1, "the benchmark leaked", "dan")
    for who in ("ann", "bob"):
        answer(ledger, ledger.requests()[-1][0].request.digest, who)
    assert ledger.release(1, "the benchmark leaked", "dan")
    assert isinstance(
        ledger.promote("x", "p4", 0.515, 0.54, champion=third), Deny
    )  # it follows what was undone
    slower = Champion(artifact=store.add(4), parent=safe, generation=3, evidence="e", train_gflop=1)
    assert ledger.promote("x", "p4", 0.505, 0.52, champion=slower) == Allow()
    assert audit.verify(ledger.audit()) is None


def acknowledge_when_told(storage: Path, port: int) -> Any:
    """Bring the webhook's server up after a while, and acknowledge what it is told; the alert."""
    ledger = Ledger(f"sqlite:///{storage}/ledger.db")
    while not any(entry.rule == "alert.webhook" for _, entry, _ in ledger.audit()):
        time.sleep(0.05)
    with http_server(port) as server:
        while not server.taken:
            time.sleep(0.05)
        alert = server.taken[0][2]
        ledger.acknowledge(alert["incident"], "we look into it", "dan")
    ledger.close()
    return alert


# --- where alerts go, and the log


def test_where_alerts_go_is_kept_for_its_owner_alone_until_another_run_says_otherwise(tmp_path: Path):
    assert kept(tmp_path, LINEAGE) == AlertsConfig()
    for config in (AlertsConfig(webhook="https://host/secret"), AlertsConfig(command=["page", "me"])):
        keep(tmp_path / "incidents", LINEAGE, config)
        assert kept(tmp_path / "incidents", LINEAGE) == config
    (file,) = (tmp_path / "incidents").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text('{"webhook": "file:///x"}')
    with pytest.raises(DocumentError, match="webhook: expected a URL that begins with http"):
        kept(tmp_path / "incidents", LINEAGE)


def test_the_last_lines_of_our_log_are_kept():
    with log_tail() as tail:
        logging.getLogger("safety.alert").warning("one")
        logging.getLogger("another").warning("two")
        assert [line.rpartition(": ")[2] for line in tail.lines()] == ["one"]
    logging.getLogger("safety.alert").warning("three")
    assert len(tail.lines()) == 1
