"""A sweep on three hosts, of which two are killed and cut off again and again."""

import pytest

from bench.computing import Settings
from bench.faults import sweep, told
from bench.hosts import obstacle

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.timeout(290)]


def test_a_sweep_whose_hosts_are_killed_and_cut_off_loses_no_trial_and_counts_none_twice():
    if reason := obstacle():
        pytest.skip(f"needs hosts of its own: {reason}")
    settings = Settings(folder="", ledger="", trials=9, reports=5, seconds=1.0, concurrent=3)
    found = sweep(settings, every=10)
    assert len(found["faults"]) >= 2
    assert found["forfeited"] >= 1
    seen = told(settings, found, found)
    assert (seen["lost"], seen["double"], seen["budget_exact"]) == (0, 0, True), found
