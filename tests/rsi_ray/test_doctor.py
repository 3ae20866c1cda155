"""What the doctor makes of facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rsi_ray.cluster_facts import Access, Gpu, Node, Torch, Watch
from rsi_ray.doctor import DAY_MS, Finding, Level, findings, lines

HERE = {"python": "3.11.7", "ray": "2.60.0"}
NODE = Node(address="10.0.0.2", versions=HERE, free={"/tmp": (10**11, 10**12)})
ACCESS = Access(dashboard="127.0.0.1:8265", asks_for_token=True, public="")
NOW = 100 * DAY_MS
WATCH = Watch(ledger="sqlite:////ledger.db", drilled_ms=NOW - DAY_MS)
GPU = Gpu(name="H100", total_bytes=80 * 10**9, used_bytes=0, driver="570.1")
COMPUTES = Torch()
TOO_OLD = Torch(fault="torch 2.9.0+cu128, for CUDA 12.8: the driver is too old")
NO_DRIVER = Torch(fault="torch 2.9.0+cu128, for CUDA 12.8: found no driver", has_driver=False)


def judged(*nodes: Node, access: Access = ACCESS, watch: Watch = WATCH) -> list[Finding]:
    return findings(nodes or (NODE,), access, watch, HERE, NOW)


def bad(found: list[Finding]) -> list[tuple[str, str, str]]:
    """Of each problem what it is about, its level and its text."""
    return [(one.about, str(one.level), one.told) for one in found if one.level != Level.OK]


def test_a_cluster_that_is_well_has_a_line_for_all_that_was_looked_at_and_nothing_to_do():
    found = judged()
    assert bad(found) == []
    looked_at = "nodes versions authentication dashboard clocks disk storage GPUs governor drill"
    assert " ".join(one.about for one in found) == looked_at
    assert not any(one.to_do for one in found)


def test_every_problem_comes_with_what_to_do():
    worst = replace(
        NODE,
        versions={"python": "3.10.0"},
        clock_ms=(9000.0, 1.0),
        free={"/tmp": (1, 10**12)},
        storage="/x is not the storage of the head",
        gpus=[replace(GPU, used_bytes=40 * 10**9)],
        gpus_of_ray=2.0,
        torch=TOO_OLD,
    )
    access = Access(dashboard="0.0.0.0:8265", asks_for_token=False, public="10.0.0.1:8265")
    watch = replace(WATCH, missed="one lived", killed="fire", frozen=["main"])
    found = judged(worst, access=access, watch=watch)
    assert {one.about for one in found if one.level == Level.OK} == {"nodes", "GPUs", "governor"}
    assert all(one.to_do for one in found if one.level != Level.OK)
    assert all(one.to_do in line for one, line in zip(found, lines(found), strict=True))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"failed": "ModuleNotFoundError: No module named 'rsi_ray'"},
            [("nodes", "FAIL", "10.0.0.3: nothing runs: ModuleNotFoundError: No module named 'rsi_ray'")],
        ),
        (
            {"versions": {"python": "3.11.7"}},
            [("versions", "FAIL", "10.0.0.3: ray none, here 2.60.0")],
        ),
        ({"clock_ms": (-1500.0, 20.0)}, [("clocks", "warn", "10.0.0.3: 1.5 s behind")]),
        # it may be as little as 0.5 s
        ({"clock_ms": (-1500.0, 1000.0)}, []),
        (
            {"free": {"/data": (4 * 10**9, 10**12)}},
            [("disk", "FAIL", "10.0.0.3: 4.0 of 1000 GB are free at /data")],
        ),
        # of a small disk a twentieth will do
        ({"free": {"/data": (4 * 10**9, 8 * 10**9)}}, []),
        ({"gpus": [GPU], "gpus_of_ray": 1.0, "torch": COMPUTES}, []),
        (
            {"gpus_of_ray": 2.0, "torch": NO_DRIVER},
            [("GPUs", "warn", "10.0.0.3: Ray gives out 2, the driver knows 0")],
        ),
        (
            {"gpus": [GPU], "gpus_of_ray": 1.0, "torch": TOO_OLD},
            [("GPUs", "FAIL", f"10.0.0.3: torch can't use them: {TOO_OLD.fault}")],
        ),
        (
            {"gpus": [GPU], "gpus_of_ray": 1.0},
            [("GPUs", "warn", "10.0.0.3: all in use: torch was not asked")],
        ),
    ],
)
def test_a_nodes_problem_is_told_with_its_address(changes: dict[str, Any], expected: list[Any]):
    told = bad(judged(NODE, replace(NODE, address="10.0.0.3", **changes)))
    assert told == expected


def test_two_drivers_are_a_problem():
    one = replace(NODE, gpus=[GPU], gpus_of_ray=1.0, torch=COMPUTES)
    other = replace(one, gpus=[replace(GPU, driver="550.9")])
    assert bad(judged(one, other)) == [("GPUs", "warn", "drivers 550.9, 570.1")]


def of_gpus(*nodes: Node) -> list[str]:
    return [one.told for one in judged(*nodes) if one.about == "GPUs" and one.level == Level.OK]


def test_gpus_are_told_by_kind_with_memory_driver_and_how_many_are_in_use():
    eight = replace(NODE, gpus=[GPU] * 8, gpus_of_ray=8.0, torch=COMPUTES)
    assert of_gpus(eight) == [
        "8 H100, 80 GB each, driver 570.1, free",
        "torch computes on them, on every node",
    ]
    shared = Gpu(name="GB10", total_bytes=0, used_bytes=0, driver="570.1")
    busy = replace(GPU, used_bytes=70 * 10**9)
    others = replace(eight, gpus=[shared, busy], gpus_of_ray=2.0)
    assert of_gpus(eight, others) == [
        "1 GB10, memory not told, driver 570.1, free",
        "9 H100, 80 GB each, driver 570.1, 1 in use",
        "torch computes on them, on every node",
    ]
    old = replace(eight, gpus=[replace(GPU, driver="550.9")], gpus_of_ray=1.0)
    assert "1 H100, 80 GB, driver 550.9, free" in of_gpus(eight, old)


@pytest.mark.parametrize("torch", [TOO_OLD, None])
def test_torch_computes_nowhere_unless_it_does_on_every_node(torch: Torch | None):
    well = replace(NODE, gpus=[GPU], gpus_of_ray=1.0, torch=COMPUTES)
    assert "torch" not in str(of_gpus(well, replace(well, torch=torch)))
    assert of_gpus(NODE) == ["none"]


@pytest.mark.parametrize(
    ("changes", "about", "level"),
    [
        ({"asks_for_token": False}, "authentication", "FAIL"),
        ({"asks_for_token": None}, "authentication", "warn"),
        ({"public": "10.0.0.1:8265"}, "dashboard", "FAIL"),
        ({"public": "10.0.0.1:8265", "in_pod": True}, "dashboard", "warn"),
    ],
)
def test_who_may_speak_to_the_cluster(changes: dict[str, Any], about: str, level: str):
    ((found, how, _),) = bad(judged(access=replace(ACCESS, **changes)))
    assert (found, how) == (about, level)


def test_a_pod_that_lets_in_whoever_reaches_it_is_no_better_than_a_host():
    found = bad(judged(access=replace(ACCESS, public="10.0.0.1:8265", in_pod=True, asks_for_token=False)))
    assert [(about, how) for about, how, _ in found] == [("authentication", "FAIL"), ("dashboard", "FAIL")]


@pytest.mark.parametrize(
    ("watch", "expected"),
    [
        (Watch(ledger=""), []),
        (Watch(ledger="x", fault="it is silent"), [("governor", "FAIL", "it is silent")]),
        (Watch(ledger="x"), [("drill", "warn", "the kill switch was never tried")]),
        (
            replace(WATCH, drilled_ms=NOW - 31 * DAY_MS),
            [("drill", "warn", "the last one passed, 31 days ago")],
        ),
        (replace(WATCH, missed="one lived"), [("drill", "FAIL", "the last one failed: one lived")]),
        (replace(WATCH, killed="fire"), [("kill switch", "FAIL", "thrown: fire")]),
        (replace(WATCH, frozen=["main"]), [("incidents", "warn", "lineage main was shut down")]),
    ],
)
def test_governor_switch_and_drill(watch: Watch, expected: list[Any]):
    assert bad(judged(watch=watch)) == expected


def test_where_workers_write_into_a_store_its_reach_is_told_and_not_the_folders():
    far = replace(NODE, address="10.0.0.3", artifacts="s3://b: down", storage="/x is not the storage")
    found = findings([NODE, far], ACCESS, WATCH, HERE, NOW, artifacts="s3://b")
    assert bad(found) == [("artifacts", "FAIL", "10.0.0.3: s3://b: down")]
    well = findings([NODE], ACCESS, WATCH, HERE, NOW, artifacts="s3://b")
    assert "artifacts       every node reads and writes s3://b" in "\n".join(lines(well))
