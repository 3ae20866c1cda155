"""Emergency shutdown of a sweep's lineage on a real Ray, through the governor's actor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rsi_ray.alerts import AlertsConfig
from rsi_ray.disk import WEIGHTS
from rsi_ray.errors import SweepError
from rsi_ray.sweep import run_sweep
from safety import Deny, Ledger
from safety.actor import connect
from safety.emergency import pending
from tests.integration.conftest import Maker, ledger_url
from tests.integration.jobs import BehavingJob
from tests.safety.test_alert import http_server, url_of

pytestmark = pytest.mark.ray


def test_a_sweep_whose_best_is_too_good_saves_it_tells_and_is_followed_by_none_of_its_lineage(
    make_sweep: Maker, tmp_path: Path
):
    limits = {"on_excess": "shutdown", "max_improvement_rate": 1e-6}
    with http_server() as server:
        config = AlertsConfig(webhook=url_of(server), seconds=0.0)
        sweep = make_sweep(
            BehavingJob(), trials=4, baseline={"width": 1}, limits=limits, lineage="line", alerts=config
        )
        result = run_sweep(sweep)
        ((_, _, alert),) = server.taken
    assert isinstance(result.improvement, Deny)
    assert result.ended.startswith("frozen: improvement ")
    assert (alert["lineage"], alert["rule"]) == ("line", "max_improvement_rate")
    ledger = Ledger(ledger_url(tmp_path))
    (incident,) = ledger.incidents()
    assert pending(incident) == ("acknowledged", "released")
    folder = tmp_path / "incidents" / incident.name
    best = sweep.folder / WEIGHTS / f"{(result.best or {})['trial_id']}.safetensors"
    assert (folder / "champion.safetensors").read_bytes() == best.read_bytes()
    saved = [json.loads(line)["seq"] for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert saved == list(range(1, len(saved) + 1))

    with pytest.raises(SweepError, match=r"lineage line: frozen by incident 1: .*acknowledge 1 --reason WHY"):
        run_sweep(replace(sweep, name="another", folder=tmp_path / "another"))
    assert not (tmp_path / "another").exists()
    client = connect(ledger_url(tmp_path))
    assert client.shut_down("line", "again", "ann") == incident == client.standing_incident("line")
    assert client.leases_left(1) == 0
    assert client.current_champion("line") is None
    ledger.acknowledge(1, "seen", "ann")
    assert ledger.release(1, "a wrong baseline", "ann")
    assert client.standing_incident("line") is None
    ledger.close()
