"""What the workers of a sweep are called on a real Ray: its dashboard shows the same."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest
import ray

from rsi_ray.sweep import run_sweep
from safety.cluster import cluster_at
from safety.errors import ClusterUnreachable
from safety.governance import sweep_of_marker
from tests.integration.conftest import Maker
from tests.integration.jobs import BehavingJob

pytestmark = pytest.mark.ray


def said() -> set[str]:
    """What the actors that Ray knows say of themselves."""
    return {one.says for one in cluster_at(ray.get_runtime_context().gcs_address).actors if one.says}


def test_ray_shows_a_worker_by_sweep_trial_and_spec(make_sweep: Maker):
    before = said()
    plan = make_sweep(BehavingJob(seconds=1), trials=4, concurrent=2)
    sweep = threading.Thread(target=run_sweep, args=(plan,), daemon=True)
    sweep.start()
    seen: set[str] = set()
    while sweep.is_alive():
        with suppress(ClusterUnreachable):  # a busy one is asked again
            seen |= said() - before
        time.sleep(0.2)
    assert seen
    assert {sweep_of_marker(says) for says in seen} == {plan.name}
    assert all(" width" in says for says in seen), seen
