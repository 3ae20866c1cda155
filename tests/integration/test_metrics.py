"""What a node tells Prometheus of a governed sweep, on a real Ray."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable
from urllib.request import urlopen

import pytest
import ray

from rsi_ray.records import Verdict
from rsi_ray.sweep import run_sweep
from tests.exported import EXPORTED
from tests.integration.conftest import Maker
from tests.integration.jobs import BehavingJob

pytestmark = pytest.mark.ray

Place = tuple[str, frozenset[tuple[str, str]]]
Page = dict[Place, list[float]]
_LINE = re.compile(r"(ray_rsi_\w+)\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
# Ray exports every 10 s, and forgets the governor of the test before after 30
_SECONDS = 90


def scraped() -> Page:
    """Our metrics on this node's page, by the labels that are ours; several processes may tell the same."""
    (node,) = ray.nodes()
    address, port = node["NodeManagerAddress"], node["MetricsExportPort"]
    with urlopen(f"http://{address}:{port}/metrics", timeout=10) as page:
        lines = [_LINE.match(line) for line in page.read().decode().splitlines()]
    found: Page = defaultdict(list)
    for line in filter(None, lines):
        ours = EXPORTED[line[1]].labels
        labels = frozenset(label for label in _LABEL.findall(line[2]) if label[0] in ours)
        found[line[1], labels].append(float(line[3]))
    return found


def place(name: str, **labels: str) -> Place:
    return name, frozenset(labels.items())


def scraped_when(holds: Callable[[Page], bool]) -> Page:
    """The page once something holds of it, and one governor alone tells of itself."""
    until = time.monotonic() + _SECONDS
    while not (len((found := scraped())[ALIVE]) == 1 and holds(found)):
        assert time.monotonic() < until, sorted(found)
        time.sleep(0.5)
    return found


ALIVE = place("ray_rsi_governor_alive_timestamp_seconds")


def test_a_node_tells_prometheus_what_a_sweep_did_and_what_its_ledger_holds(make_sweep: Maker):
    # others on this Ray had the same names
    named = f"metrics-{time.time_ns()}"
    limits = {"cluster": {"trials": 8}, "sweep": {"trials": 6}}
    result = run_sweep(make_sweep(BehavingJob(), name=named, limits=limits, trials=4))
    best = place("ray_rsi_best_score", sweep=named, run=named)
    spent = place("ray_rsi_budget_spent", scope="cluster", resource="trials")
    found = scraped_when(lambda page: best in page and page[spent] == [4])
    assert result.best is not None
    assert found[best] == [result.best["score"]]
    assert found[place("ray_rsi_trials", sweep=named, run=named, state="measured")] == [4]
    assert (result.table["verdict"] == Verdict.MEASURED).sum() == 4
    assert found[place("ray_rsi_budget_cap", scope="cluster", resource="trials")] == [8]
    assert found[place("ray_rsi_budget_share", scope="cluster", resource="trials")] == [0.5]
    assert found[place("ray_rsi_sweeps", state="closed")] == [1]
    assert found[place("ray_rsi_killed")] == [0]
    assert abs(time.time() - found[ALIVE][0]) < _SECONDS
    # a node goes on telling the counters of governors that are gone
    assert max(found[place("ray_rsi_admissions_total")]) >= 4
    refused = (result.table["rule"] == "max_params").sum()
    if refused:
        assert max(found[place("ray_rsi_refusals_total", kind="deny", rule="max_params")]) >= refused


def test_a_sweep_that_is_closed_has_no_curve_any_more(make_sweep: Maker):
    named = f"metrics-{time.time_ns()}"

    def of_sweep(page: Page) -> bool:
        return place("ray_rsi_budget_spent", scope=f"sweep:{named}", resource="trials") in page

    seen: list[bool] = []
    plan = make_sweep(BehavingJob(seconds=2.0), name=named, trials=6, concurrent=2)
    run_sweep(plan, lambda _: seen.append(of_sweep(scraped())))
    assert any(seen)
    # its governor tells on
    found = scraped_when(lambda page: not of_sweep(page))
    assert found[place("ray_rsi_sweeps", state="closed")] == [1]
