"""A kill over HTTP against a sweep that runs on a real Ray."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from rsi_ray.result import Result
from rsi_ray.sweep import run_sweep
from safety.token import token_in
from tests.integration.conftest import Maker, open_leases
from tests.integration.jobs import BehavingJob

pytestmark = pytest.mark.ray


def test_a_kill_over_http_ends_a_running_sweep(make_sweep: Maker, tmp_path: Path):
    plan = make_sweep(BehavingJob(seconds=0.2), trials=200, concurrent=2)
    found: list[Result] = []
    sweep = threading.Thread(target=lambda: found.append(run_sweep(plan)), daemon=True)
    sweep.start()
    program = "from rsi_ray.cli import main; main()"
    until = time.monotonic() + 60
    while not (tmp_path / "ledger.db").exists() or not open_leases(plan):
        assert time.monotonic() < until
        time.sleep(0.1)
    server = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--ledger", plan.ledger_url, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().removeprefix("Listening at ").split(",")[0]
        asked = urllib.request.Request(
            f"{url}/kill",
            data=json.dumps({"reason": "fire", "by": "ann"}).encode(),
            headers={"Authorization": f"Bearer {token_in(tmp_path)}"},
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert json.load(answer)["killed"] is True
        sweep.join(30)
        assert not sweep.is_alive()
    finally:
        server.kill()
        server.communicate()
    assert found[0].ended == "killed: fire"
    assert open_leases(plan) == []
