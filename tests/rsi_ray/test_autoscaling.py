"""What a cluster may grow to: by what Ray is told, and by the file of its autoscaler."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config

from bench.hosts import ROOT
from rsi_ray import autoscaling
from rsi_ray.autoscaling import at_most, most_of_cluster

ADDRESS = "10.0.0.9:6379"
HERE = {"CPU": 1.0, "memory": 100.0}


def config(**changes: Any) -> dict[str, Any]:
    types = {
        "head": {"resources": {"CPU": 0}},
        "large": {"resources": {"CPU": 8, "GPU": 4}, "max_workers": 2},
        "small": {"resources": {"CPU": 2}},
    }
    return {"max_workers": 5, "head_node_type": "head", "available_node_types": types, **changes}


def test_every_node_that_may_be_started_counts_within_the_limit_of_all():
    assert at_most(config()) == {"CPU": 2 * 8 + 3 * 2, "GPU": 8}
    assert at_most(config(max_workers=1)) == {"CPU": 8, "GPU": 4}


def test_the_head_counts_once_whatever_the_limit():
    types = {"head": {"resources": {"CPU": 3}}}
    assert at_most(config(available_node_types=types, max_workers=0)) == {"CPU": 3}


@pytest.mark.parametrize("told", [{}, {"max_workers": 3}, {"available_node_types": {"local": {}}}])
def test_a_file_that_says_nothing_of_resources_gives_none(told: dict[str, Any]):
    assert at_most(told) == {}


def test_the_file_for_google_cloud_comes_to_what_it_lists():
    told = prepare_config(yaml.safe_load((ROOT / "deploy" / "gcp.yaml").read_text()))
    assert at_most(told) == {"CPU": 4 * 16 + 8 * 8, "GPU": 8}


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Those of this host; Ray is told nothing."""
    found: list[Any] = []
    monkeypatch.setattr(autoscaling.psutil, "process_iter", lambda _names: found)
    monkeypatch.setattr(autoscaling.ray, "cluster_resources", lambda: dict(HERE))
    context = SimpleNamespace(gcs_address=ADDRESS)
    monkeypatch.setattr(autoscaling.ray, "get_runtime_context", lambda: context)
    tells(monkeypatch, None)
    return found


def tells(monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    state = autoscaling.ray._private.state.state
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: told)


def started(*words: str) -> Any:
    return SimpleNamespace(info={"cmdline": ["monitor.py", *words]})


def test_without_an_autoscaler_the_cluster_is_what_is_there(processes: list[Any]):
    processes += [SimpleNamespace(info={"cmdline": None}), started(f"--gcs-address={ADDRESS}")]
    assert most_of_cluster() == HERE


def test_the_file_of_this_clusters_own_autoscaler_counts(processes: list[Any], tmp_path: Path):
    mine, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    mine.write_text(yaml.safe_dump(config()))
    other.write_text(yaml.safe_dump(config(max_workers=1)))
    processes.append(started("--gcs-address=10.0.0.8:6379", f"--autoscaling-config={other}"))
    assert most_of_cluster() == HERE
    processes.append(started(f"--gcs-address={ADDRESS}", f"--autoscaling-config={mine}"))
    assert most_of_cluster() == {"CPU": 22, "GPU": 8, "memory": 100}


def test_what_is_there_counts_where_it_is_more(processes: list[Any], monkeypatch: pytest.MonkeyPatch):
    tells(monkeypatch, {"CPU": 0, "GPU": 2, "TPU": sys.maxsize})
    assert most_of_cluster() == {"CPU": 1, "GPU": 2, "memory": 100}


def test_where_ray_or_the_file_fail_nothing_more_is_known(
    processes: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    state = autoscaling.ray._private.state.state
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", None)
    processes.append(started(f"--gcs-address={ADDRESS}", f"--autoscaling-config={tmp_path / 'gone'}"))
    assert most_of_cluster() == HERE
