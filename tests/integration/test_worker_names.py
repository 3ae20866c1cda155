"""What the workers of a sweep are called on a real Ray: its dashboard shows the same."""

from __future__ import annotations

import threading

import pytest
import ray

from rsi_ray.sweep import run_sweep
from safety.cluster import cluster_at
from safety.governance import sweep_of_marker
from tests.integration.conftest import Maker
from tests.integration.jobs import BehavingJob

pytestmark = pytest.mark.ray


def test_ray_shows_a_worker_by_sweep_trial_and_spec(make_sweep: Maker):
    plan = make_sweep(BehavingJob(seconds=1), trials=4, concurrent=2)
    sweep = threading.Thread(target=run_sweep, args=(plan,), daemon=True)
    sweep.start()
    address, seen = ray.get_runtime_context().gcs_address, set()
    while sweep.is_alive():
        seen |= {one.says for one in cluster_at(address).actors if one.says}
    assert seen
    assert {sweep_of_marker(says) for says in seen} == {plan.name}
    assert all(" width" in says for says in seen), seen
