"""How the facts are found that the doctor judges."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from rsi_ray import examination
from rsi_ray.cluster_facts import Gpu


def told(text: str) -> Any:
    return lambda command, **options: subprocess.CompletedProcess(command, 0, stdout=text)


def test_gpus_are_those_of_the_drivers_tool():
    text = "NVIDIA H100 80GB HBM3, 81559, 512, 570.86.15\nNVIDIA H100 80GB HBM3, 81559, 0, 570.86.15\n"
    one, other = examination.gpus(told(text))
    assert one == Gpu(
        name="NVIDIA H100 80GB HBM3", total_bytes=81559 << 20, used_bytes=512 << 20, driver="570.86.15"
    )
    assert other.used_bytes == 0


def test_memory_that_the_tool_does_not_tell_is_none():
    (one,) = examination.gpus(told("NVIDIA GB10, [N/A], [N/A], 580.95\n"))
    assert (one.total_bytes, one.used_bytes) == (0, 0)


@pytest.mark.parametrize("error", [FileNotFoundError("none"), subprocess.CalledProcessError(9, "nvidia-smi")])
def test_where_the_tool_is_missing_or_fails_there_are_none(error: Exception):
    def run(command: Any, **options: Any) -> Any:
        raise error

    assert examination.gpus(run) == []


@contextmanager
def served(status: int) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *told: Any) -> None:
            del told

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api/jobs/"
        server.shutdown()


@pytest.mark.parametrize(("status", "asks"), [(200, False), (401, True), (403, True), (500, None)])
def test_whether_a_cluster_asks_for_a_token_is_tried(status: int, asks: bool | None):
    with served(status) as url:
        assert examination.asks_for_token(url) is asks
    assert examination.asks_for_token(url) is None


def test_a_proxy_does_not_answer_for_a_cluster(monkeypatch: pytest.MonkeyPatch):
    with served(200) as cluster, served(403) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert examination.asks_for_token(cluster) is False


def test_a_ledger_is_looked_at_before_there_is_a_governor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def nobody(*named: object, **options: object) -> object:
        raise ValueError("there is none")

    monkeypatch.setattr(ray, "get_actor", nobody)
    assert examination.watch("", tmp_path).fault == ""
    assert examination.watch(f"sqlite:///{tmp_path}/ledger.db", tmp_path).fault == ""
    assert "not a database URL" in examination.watch("garbage", tmp_path).fault
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_sees_another_storage_says_so(tmp_path: Path):
    probe = examination.Probe()
    (tmp_path / "mark").write_text("mark")
    assert probe.facts(str(tmp_path), "mark")["storage"] == ""
    assert len(list(tmp_path.iterdir())) == 2
    assert "is not the storage of the head" in probe.facts(str(tmp_path / "missing"), "mark")["storage"]
    (tmp_path / "mark").write_text("another")
    assert "is not the storage of the head" in probe.facts(str(tmp_path), "mark")["storage"]


def test_a_node_that_does_not_reach_the_store_says_so_in_one_line(tmp_path: Path):
    probe = examination.Probe()
    (tmp_path / "file").touch()
    assert probe.facts(str(tmp_path), "mark", (), f"file://{tmp_path}/share")["artifacts"] == ""
    told = probe.facts(str(tmp_path), "mark", (), f"file://{tmp_path}/file")["artifacts"]
    assert told.startswith(f"file://{tmp_path}/file: ")
    assert "\n" not in told
    assert probe.facts(str(tmp_path), "mark")["artifacts"] == ""


def test_a_ledger_on_another_host_is_opened_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Governor:
        def ledger_url(self) -> str:
            return f"sqlite:///{tmp_path}/far/ledger.db"

    monkeypatch.setattr(ray, "get_actor", lambda *named, **options: object())
    monkeypatch.setattr(examination, "connect_to_any", lambda *given, **options: Governor())
    assert "is on another host: run the doctor there" in examination.watch("", tmp_path).fault
    assert not (tmp_path / "far").exists()


def test_the_smallest_gpu_is_that_of_all_nodes_which_give_gpus_to_trials(monkeypatch: pytest.MonkeyPatch):
    told = {"large": [80 << 30, 24 << 30], "shared": [0], "gone": RayError("gone"), "cpu": [1]}

    class Asked:
        def __init__(self, node: str) -> None:
            self.gpus = self
            self._node = node

        def remote(self) -> str:
            return self._node

    def answer(node: str, **options: Any) -> list[Gpu]:
        found = told[node]
        if isinstance(found, RayError):
            raise found
        return [Gpu(name="", total_bytes=size, used_bytes=0, driver="") for size in found]

    nodes = [
        {"NodeID": node, "Alive": True, "Resources": {} if node == "cpu" else {"GPU": 1.0}} for node in told
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get", answer)
    monkeypatch.setattr(ray, "kill", lambda probe: None)
    monkeypatch.setattr(examination, "_probe", Asked)
    assert examination.smallest_gpu() == 24 << 30
    told["large"] = [0]
    assert examination.smallest_gpu() == 0
