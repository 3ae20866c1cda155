"""That the alert on a silent governor finds the nodes of its session by the label that Ray gives both."""

from __future__ import annotations

import re
import time
from urllib.request import urlopen

import pytest
import ray

from rsi_ray.sweep import run_sweep
from tests.integration.conftest import Maker
from tests.integration.jobs import BehavingJob

pytestmark = pytest.mark.ray

ALIVE, NODE = "ray_rsi_governor_alive_timestamp_seconds", "ray_node_cpu_utilization"
_SECONDS = 60


def sessions(metric: str) -> set[str]:
    """Sessions of Ray that this node tells a metric of."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with urlopen(url, timeout=10) as page:
            told = page.read().decode()
    except OSError:  # who tells it isn't there yet
        return set()
    return set(re.findall(rf'^{metric}\{{.*SessionName="([^"]+)"', told, re.MULTILINE))


def test_a_governor_and_its_node_are_told_under_one_session(make_sweep: Maker):
    run_sweep(make_sweep(BehavingJob(), trials=1))
    until = time.monotonic() + _SECONDS
    while not sessions(ALIVE) or not sessions(NODE):
        assert time.monotonic() < until
        time.sleep(0.5)
    assert len(sessions(ALIVE)) == 1
    assert sessions(ALIVE) == sessions(NODE)
