"""A sweep on a head without CPUs, whose autoscaler starts nodes when trials wait."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.hosts import ROOT, network
from tests.machines import Machine, machine, why_not
from tests.small_sweep import SMALL_SWEEP

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.timeout(400)]

# the nodes of this provider of Ray are processes of the head
CONFIG: dict[str, Any] = {
    "cluster_name": "grows",
    "provider": {"type": "fake_multinode", "launch_multiple": True},
    "max_workers": 3,
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 3},
    },
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 5,
    # nothing is done over ssh, and Ray asks for it all
    "auth": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    "cluster_synced_files": [],
    "rsync_exclude": [],
    "rsync_filter": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}
START = """
RAY_FAKE_CLUSTER=1 RAY_enable_autoscaler_v2=0 AUTOSCALER_UPDATE_INTERVAL_S=1 ray start --head --port=6379
--num-cpus=0 --num-gpus=0 --include-dashboard=false --autoscaling-config=~/grows.json
"""
# a node that was started may still be on its way
NODES = """
import ray, time
ray.init("auto")
until = time.monotonic() + 60
while (cpus := ray.cluster_resources().get("CPU", 0)) < 6 and time.monotonic() < until:
    time.sleep(0.5)
print("CPUs:", cpus)
"""


@pytest.fixture
def head() -> Iterator[Machine]:
    reason = why_not()
    if reason:
        pytest.skip(f"needs a machine of its own: {reason}")
    with network(1) as (host,), machine(host) as made:
        variables = f"PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={ROOT} OMP_NUM_THREADS=1"
        (made.home / ".bashrc").write_text(f"export {variables} RAY_USAGE_STATS_ENABLED=0\n")
        provider = {**CONFIG["provider"], "gcs_address": f"{host.address}:6379"}
        (made.home / "grows.json").write_text(json.dumps({**CONFIG, "provider": provider}))
        made.shell(" ".join(START.split()))
        yield made


def test_a_sweep_on_a_head_alone_has_as_many_trials_at_a_time_as_nodes_may_be_started_for(head: Machine):
    url = f"sqlite:///{head.home}/ledger.db"
    sweep = SMALL_SWEEP.format(trials=3, ledger=url, storage=head.home / "runs")
    (head.home / "sweep.yaml").write_text(sweep + "resources: {cpu: 2}\n")
    assert "3 measured" in head.shell("rsi-ray run sweep.yaml --address auto", seconds=240)
    # one after the other they would have been trained on one node
    (head.home / "nodes.py").write_text(NODES)
    assert "CPUs: 6" in head.shell("python nodes.py", seconds=90)
