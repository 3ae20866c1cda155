"""What a node tells Prometheus of a governed sweep, on a real Ray."""

from __future__ import annotations

import re
import time
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
_LINE = re.compile(r"(ray_rsi_\w+)\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
# Ray exports every 10 s
_SECONDS = 45


def scraped() -> dict[Place, float]:
    """Our metrics on this node's page, by the labels that are ours."""
    (node,) = ray.nodes()
    address, port = node["NodeManagerAddress"], node["MetricsExportPort"]
    with urlopen(f"http://{address}:{port}/metrics", timeout=10) as page:
        found = [_LINE.match(line) for line in page.read().decode().splitlines()]
    return {_place(line): float(line[3]) for line in found if line}


def _place(line: re.Match[str]) -> Place:
    ours = EXPORTED[line[1]].labels
    return line[1], frozenset(label for label in _LABEL.findall(line[2]) if label[0] in ours)


def place(name: str, **labels: str) -> Place:
    return name, frozenset(labels.items())


def scraped_when(holds: Callable[[dict[Place, float]], bool]) -> dict[Place, float]:
    """The page once something holds of it."""
    until = time.monotonic() + _SECONDS
    while not holds(found := scraped()):
        assert time.monotonic() < until, sorted(found)
        time.sleep(0.5)
    return found


def test_a_node_tells_prometheus_what_a_sweep_did_and_what_its_ledger_holds(make_sweep: Maker):
    # others on this Ray had the same names
    named = f"metrics-{time.time_ns()}"
    limits = {"cluster": {"trials": 8}, "sweep": {"trials": 6}}
    result = run_sweep(make_sweep(BehavingJob(), name=named, limits=limits, trials=4))
    best = place("ray_rsi_best_score", sweep=named, run=named)
    spent = place("ray_rsi_budget_spent", scope="cluster", resource="trials")
    found = scraped_when(lambda page: best in page and page.get(spent) == 4)
    measured = (result.table["verdict"] == Verdict.MEASURED).sum()
    assert found[place("ray_rsi_trials", sweep=named, run=named, state="measured")] == measured == 4
    assert result.best is not None
    assert found[best] == result.best["score"]
    assert found[place("ray_rsi_budget_cap", scope="cluster", resource="trials")] == 8
    assert found[place("ray_rsi_budget_share", scope="cluster", resource="trials")] == 0.5
    assert found[place("ray_rsi_sweeps", state="closed")] == 1
    assert found[place("ray_rsi_killed")] == 0
    alive = found[place("ray_rsi_governor_alive_timestamp_seconds")]
    assert abs(time.time() - alive) < _SECONDS
    # the ledger of this test's governor has admitted these, and no others
    assert found[place("ray_rsi_admissions_total")] >= 4
    refused = result.table[result.table["verdict"] == Verdict.REFUSED]
    told = found.get(place("ray_rsi_refusals_total", kind="deny", rule="max_params"), 0)
    assert told >= (refused["rule"] == "max_params").sum()


def test_a_sweep_that_is_closed_has_no_curve_any_more(make_sweep: Maker):
    named = f"metrics-{time.time_ns()}"

    def of_sweep(page: dict[Place, float]) -> bool:
        return place("ray_rsi_budget_spent", scope=f"sweep:{named}", resource="trials") in page

    seen: list[bool] = []
    plan = make_sweep(BehavingJob(seconds=2.0), name=named, trials=6, concurrent=2)
    run_sweep(plan, lambda _: seen.append(of_sweep(scraped())))
    assert any(seen)
    scraped_when(lambda page: not of_sweep(page))
    assert any(name == "ray_rsi_sweeps" for name, _ in scraped())  # its governor tells on
