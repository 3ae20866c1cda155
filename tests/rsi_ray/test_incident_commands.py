"""The commands for lineages that were shut down."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rsi_ray.alerts import AlertsConfig, keep
from rsi_ray.emergency import shut_down
from safety import Ledger
from safety.checkpoints import CheckpointFile
from safety.identity import identity_in
from tests.conftest import Printed
from tests.rsi_ray.shutdowns import LINEAGE, Store, ports, two_champions
from tests.safety.approvers import answer, approval
from tests.safety.test_alert import http_server, url_of


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield opened
    opened.close()


@pytest.fixture
def shut(ledger: Ledger, tmp_path: Path) -> Ledger:
    """A lineage of two champions that was shut down, saved and reverted; two must agree to release it."""
    store = Store(tmp_path / "champions")
    two_champions(ledger, store, approval=approval("ann", "bob", quorum=2))
    assert shut_down(ports(ledger, tmp_path, store), LINEAGE, "fire").problems == ()
    return ledger


def test_a_ledger_on_which_nothing_was_shut_down_says_so(ledger: Ledger, command: Printed):
    assert command("incidents", "list") == (0, "No lineage was shut down\n")
    code, printed = command("incidents", "show", "1")
    assert (code, printed.count("\n")) == (1, 1)
    assert "incident 1: not in the ledger; `rsi-ray incidents list` shows them" in printed


def test_an_incident_is_shown_acknowledged_and_released_by_the_quorum(shut: Ledger, command: Printed):
    _, listed = command("incidents", "list")
    assert listed.startswith("Incident 1: lineage family was shut down 20")
    assert listed.endswith("by the loop: fire; waits to be acknowledged, released\n")
    _, shown = command("incidents", "show", "1")
    assert re.search(r"  saved 20\S+ by the loop: \S+/incidents/family-[0-9a-f]{12}\n", shown)
    assert f"  safe: {shut.incident(1).safe}\n" in shown
    code, printed = command("incidents", "release", "1", "--reason", "understood")
    assert (code, printed.count("\n")) == (1, 1)
    assert "incident 1: it can't be released before it is acknowledged" in printed
    code, printed = command("incidents", "acknowledge", "1", "--reason", "seen", "--by", "dan")
    assert (code, printed.endswith("; waits to be released\n")) == (0, True)
    assert command("incidents", "acknowledge", "1", "--reason", "seen")[1].startswith("Acknowledged before; ")
    code, printed = command("incidents", "release", "1", "--reason", "understood", "--by", "dan")
    assert (code, printed.count("\n")) == (1, 1)
    assert "release: request" in printed
    request = shut.requests()[-1][0].request
    assert f"`rsi-ray approvals approve {request.name} --key FILE --reason WHY`" in printed
    assert "  kind: release\n" in command("approvals", "show", request.name)[1]
    for who in ("ann", "bob"):
        answer(shut, request.digest, who)
    code, printed = command("incidents", "release", "1", "--reason", "understood", "--by", "dan")
    assert (code, printed) == (0, "Incident 1: lineage family may run again\n")
    assert "was released before" in command("incidents", "release", "1", "--reason", "why")[1]
    assert command("incidents", "list")[1].endswith("; released\n")
    told = json.loads(command("incidents", "list", "--json")[1])
    assert (told["number"], told["pending"], told["steps"][-1]["told"]) == (1, [], "understood")


def test_the_status_shows_a_frozen_lineage_and_fails_until_it_is_released(shut: Ledger, command: Printed):
    code, printed = command("status", "--ledger-only")
    assert code == 1
    assert "FROZEN Incident 1: lineage family was shut down" in printed
    assert "frozen by incident 1: `rsi-ray incidents acknowledge 1 --reason WHY` comes next" in printed
    shut.acknowledge(1, "seen", "dan")
    code, printed = command("status", "--ledger-only")
    assert (code, "`rsi-ray incidents release 1 --reason WHY` comes next" in printed) == (1, True)
    code, printed = command("status", "--ledger-only", "--json")
    (told,) = json.loads(printed.splitlines()[0])["incidents"]
    assert (code, told["pending"]) == (1, ["released"])


def test_a_status_without_incidents_is_none_to_do_anything_about(ledger: Ledger, command: Printed):
    assert command("status", "--ledger-only")[0] == 0


def test_what_a_run_that_crashed_has_not_told_is_told_by_the_next_command(
    ledger: Ledger, command: Printed, tmp_path: Path
):
    two_champions(ledger, Store(tmp_path / "champions"))
    ledger.shut_down(LINEAGE, "fire", "the loop")
    with http_server() as server:
        keep(tmp_path / "incidents", LINEAGE, AlertsConfig(webhook=url_of(server)))
        for _ in range(2):
            assert command("incidents", "list")[0] == 0
        assert [alert["incident"] for _, _, alert in server.taken] == [1]
    assert [done.step for done in ledger.incident(1).done] == ["frozen", "revoked", "alerted"]


def test_a_sink_that_is_down_is_tried_again_by_each_command_until_somebody_acknowledges(
    ledger: Ledger, command: Printed, tmp_path: Path
):
    two_champions(ledger, Store(tmp_path / "champions"))
    ledger.shut_down(LINEAGE, "fire", "the loop")
    with http_server() as server:
        port = server.server_port
    keep(tmp_path / "incidents", LINEAGE, AlertsConfig(webhook=url_of(server)))
    for _ in range(2):
        assert "alerted" in command("incidents", "list")[1]
    assert [entry.rule for _, entry, _ in ledger.audit()].count("alert.webhook") == 1
    assert ledger.sweep("x").state == "frozen"
    command("incidents", "acknowledge", "1", "--reason", "seen")
    with http_server(port) as server:
        command("incidents", "show", "1")
        assert server.taken == []


def test_where_alerts_go_that_can_not_be_read_is_told_and_stops_nothing(
    ledger: Ledger, command: Printed, tmp_path: Path
):
    two_champions(ledger, Store(tmp_path / "champions"))
    ledger.shut_down(LINEAGE, "fire", "the loop")
    (tmp_path / "incidents").mkdir()
    (tmp_path / "incidents" / f"{LINEAGE}.alerts.json").write_text("{")
    code, printed = command("incidents", "list")
    assert (code, "family.alerts.json: cannot be read" in printed) == (0, True)


def test_an_acknowledgement_is_signed_where_there_is_a_key(shut: Ledger, command: Printed, tmp_path: Path):
    identity_in(tmp_path)
    command("incidents", "acknowledge", "1", "--reason", "seen")
    newest = CheckpointFile(tmp_path / "checkpoints", "ledger.db").read().newest
    assert newest
    assert newest.seq == len(shut.audit())


def test_looking_at_incidents_loads_neither_torch_nor_ray():
    program = (
        "import sys; from rsi_ray.cli import app; sys.argv = ['rsi-ray', 'incidents']; app()\n"
        "print({'torch', 'ray', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
