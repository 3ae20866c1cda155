"""What the files start, started: a head and a worker with homes of their own, and a sweep on them.

No cloud and no package index answers: the autoscaler gives up, and all but this project is there already.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config

from bench.hosts import ROOT, network
from tests.machines import Machine, build_wheel, install_dependencies, machine, why_not
from tests.postgresql import server
from tests.small_sweep import SMALL_SWEEP, trained_at

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.timeout(400)]

# in the place of what a test host has not; a disk is memory there
PLAYED = {
    "sudo": 'exec "$@"',
    "cloud-init": "case $2 in instance_id) echo i-head ;; region) echo us-west-2 ;; esac",
    "aws": 'case $2 in describe-volumes) echo "vol-1 None" ;; esac',
    "lsblk": "echo /nowhere/ledger vol1",
    "mkfs.ext4": ":",
    "mount": 'for folder; do :; done; exec /usr/bin/mount -t tmpfs tmpfs "$folder"',
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A head and a worker, and what both see."""

    head: Machine
    worker: Machine
    shared: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    reason = why_not()
    if reason:
        pytest.skip(f"needs machines of its own: {reason}")
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    with network(2) as hosts, ExitStack() as stack:
        head, worker = [stack.enter_context(machine(host)) for host in hosts]
        install_dependencies(head)
        home = head.home / "rsi-ray"
        build_wheel(home / "dist")
        shutil.copytree(ROOT / "deploy", home / "deploy")
        shutil.copy(ROOT / "constraints.txt", home)
        (worker.home / "rsi-ray").symlink_to(home)
        for each in (head, worker):
            _play(each.home / "played")
            (each.home / ".bashrc").write_text("export PATH=~/played:$PATH\n")
            _give_token(each)
        for command in [config["initialization_commands"][0], *config["setup_commands"]]:
            head.shell(command)
        shutil.copy(head.home / ".bashrc", worker.home)
        yield Pair(head=head, worker=worker, shared=tmp_path_factory.mktemp("shared"))


def _play(folder: Path) -> None:
    folder.mkdir()
    for name, does in PLAYED.items():
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)


def _give_token(each: Machine) -> None:
    token = each.home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/gcp.yaml"])
def test_the_start_commands_of_a_cloud_make_a_cluster_that_a_sweep_trains_on(pair: Pair, name: str):
    config = yaml.safe_load((ROOT / name).read_text())
    head, worker = pair.head, pair.worker
    (head.home / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(prepare_config(config)))
    disk = f"{head.home}/{Path(name).stem}"
    for command in config["head_start_ray_commands"]:
        head.shell(command.replace("/mnt/ledger", disk))
    for command in config["worker_start_ray_commands"]:
        worker.shell(f"export RAY_HEAD_IP={head.host.address}; {command}")
    url = f"sqlite:///{disk}/ledger.db"
    (head.home / "sweep.yaml").write_text(SMALL_SWEEP.format(trials=1, ledger=url, storage=pair.shared))
    assert "1 measured" in head.shell("rsi-ray run sweep.yaml --address auto", seconds=200)
    assert "0 sweeps are not closed, 1 are" in head.shell(f"rsi-ray status --address auto --ledger {url}")
    # on a disk of the head's own: outside, the folder that it is mounted on is empty
    assert not list(Path(disk).iterdir())
    assert worker.host.address in head.shell(f"rsi-ray audit show --ledger {url} --json")


def test_what_kuberay_starts_makes_a_cluster_whose_ledger_is_on_postgresql(pair: Pair):
    folder = ROOT / "deploy" / "kuberay"
    cluster = next(yaml.safe_load_all((folder / "raycluster.yaml").read_text()))["spec"]
    job = yaml.safe_load((folder / "rayjob.yaml").read_text())["spec"]
    for each in (pair.head, pair.worker):
        each.shell("ray stop")
    sweep = SMALL_SWEEP.format(trials=1, ledger="postgresql+psycopg://", storage=pair.shared)
    (pair.head.home / "sweep.yaml").write_text(sweep)
    with server() as url:
        secret = "; ".join(f"export {name}={value}" for name, value in _secret(url).items())
        # as the operator writes it down, without --block
        given = "".join(f" --{k}={v}" for k, v in cluster["headGroupSpec"]["rayStartParams"].items())
        pair.head.shell(f"{secret}; RAY_AUTH_MODE=token ray start --head --dashboard-host=0.0.0.0{given}")
        pair.worker.shell(f"RAY_AUTH_MODE=token ray start --address={pair.head.host.address}:6379")
        entrypoint = job["entrypoint"].replace("/etc/rsi-ray", str(pair.head.home))
        told = pair.head.shell(f"{secret}; RAY_ADDRESS=auto {entrypoint}", seconds=200)
        assert "1 measured" in told
        assert trained_at(url) == {pair.worker.host.address}


def _secret(url: str) -> dict[str, object]:
    """What raycluster.yaml wants in the ledger's Secret, for a server that is reached by its socket."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        row = connection.execute("SHOW unix_socket_directories").fetchone()
        assert row is not None
        told = connection.info
        return {"PGHOST": row[0], "PGPORT": told.port, "PGUSER": told.user, "PGDATABASE": told.dbname}
