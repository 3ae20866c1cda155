"""Emergency shutdown as a sweep by itself meets it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from rsi_ray.alerts import AlertsConfig, kept
from rsi_ray.errors import SweepError
from rsi_ray.plan import Plan
from rsi_ray.sweep_emergency import require_running
from safety import Ledger
from safety.actor import GovernorClient
from safety.emergency import pending
from tests.rsi_ray.shutdowns import LINEAGE, Store, two_champions
from tests.safety.fakes import limits
from tests.safety.test_alert import http_server, url_of


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield opened
    opened.close()


def start(ledger: Ledger, storage: Path, lineage: str | None, config: AlertsConfig) -> None:
    """What a sweep does before it opens."""
    unused: Any = None
    plan = Plan(
        name="run", folder=storage / "run", ledger_url=ledger.url, limits=limits(), space=unused, job=unused,
        sampler=unused, reports=1, trials=1, scheduler=unused, lineage=lineage, alerts=config,
    )  # fmt: skip
    # the ledger answers what its governor's client would
    require_running(plan, cast(GovernorClient, ledger), lambda: ["a line"])


@pytest.mark.parametrize("lineage", [None, "family", "new"])
def test_a_sweep_that_may_run_keeps_where_its_alerts_go(ledger: Ledger, tmp_path: Path, lineage: str | None):
    ledger.open_sweep("x", limits(), "family")
    config = AlertsConfig(command=["page"])
    start(ledger, tmp_path, lineage, config)
    assert kept(tmp_path / "incidents", lineage or "run") == config
    assert ledger.incidents() == []


def test_a_sweep_of_a_frozen_lineage_is_refused_after_what_a_crash_left_is_done(
    ledger: Ledger, tmp_path: Path
):
    ledger.open_sweep("x", limits(), "family")
    ledger.shut_down("family", "fire", "ann")
    with http_server() as server:
        config = AlertsConfig(webhook=url_of(server), seconds=0.0)
        with pytest.raises(SweepError, match=r"^lineage family: frozen by incident 1: fire; .*acknowledge 1"):
            start(ledger, tmp_path, "family", config)
        assert [alert["incident"] for _, _, alert in server.taken] == [1]
    assert pending(ledger.incident(1)) == ("acknowledged", "released")
    ledger.acknowledge(1, "seen", "ann")
    with pytest.raises(SweepError, match=r"`rsi-ray incidents release 1 --reason WHY` comes next$"):
        start(ledger, tmp_path, "family", AlertsConfig())


def test_what_needs_the_files_of_champions_is_left_to_whoever_has_them(ledger: Ledger, tmp_path: Path):
    two_champions(ledger, Store(tmp_path / "champions"))
    ledger.shut_down(LINEAGE, "fire", "ann")
    with http_server() as server:
        with pytest.raises(SweepError, match="frozen by incident 1"):
            start(ledger, tmp_path, LINEAGE, AlertsConfig(webhook=url_of(server), seconds=0.0))
        ((_, _, alert),) = server.taken
    assert alert["problems"] == ["its champion is saved and reverted by the next run that has it"]
    assert pending(ledger.incident(1)) == ("saved", "reverted", "acknowledged", "released")
