"""`ray up` brings up deploy/onpremises.yaml over ssh, a sweep trains there, `ray down` ends it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from bench.hosts import ROOT, network
from bench.mishaps import eventually
from tests.machines import Machine, build_wheel, install_dependencies, machine, why_not
from tests.small_sweep import SMALL_SWEEP, trained_at

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.timeout(500)]

FILE = "deploy/onpremises.yaml"
SSHD = """
HostKey {home}/.ssh/host
AuthorizedKeysFile {home}/.ssh/authorized_keys
PasswordAuthentication no
UsePAM no
PidFile none
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Two hosts that sshd runs on, and a desk from which they are reached."""

    head: Machine
    worker: Machine
    desk: Machine

    @property
    def project(self) -> Path:
        """Where the commands of docs/cluster.md are given."""
        return self.desk.home / "project"

    def command(self, command: str, seconds: float = 300) -> str:
        return self.desk.shell(command, seconds=seconds, folder=self.project)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    reason = why_not("sshd", "ssh", "ssh-keygen", "rsync")
    if reason:
        pytest.skip(f"needs machines of its own: {reason}")
    with network(3) as hosts, ExitStack() as stack:
        head, worker, desk = [stack.enter_context(machine(host)) for host in hosts]
        made = Site(head=head, worker=worker, desk=desk)
        _prepare_desk(made)
        for each in (head, worker):
            install_dependencies(each)
            _serve_ssh(each, key=desk.home / ".ssh" / "rsi-ray.pub")
        made.command("ray get-auth-token --generate >/dev/null && chmod 600 ~/.ray/auth_token")
        made.command(f"ray up --yes --no-config-cache {FILE}")
        eventually(lambda: "raylet" in worker.names(), "the worker's raylet")
        yield made


def _make_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _prepare_desk(site: Site) -> None:
    """What an operator has: Ray, the checkout with its wheel, a key, and the file with his hosts in it."""
    install_dependencies(site.desk)
    _make_key(site.desk.home / ".ssh" / "rsi-ray")
    (site.desk.home / ".bashrc").write_text("export TMPDIR=~/tmp PATH=~/rsi-ray/venv/bin:$PATH\n")
    (site.desk.home / "tmp").mkdir()
    build_wheel(site.project / "dist")
    shutil.copy(ROOT / "constraints.txt", site.project)
    told = yaml.safe_load((ROOT / FILE).read_text())
    told["provider"]["head_ip"] = site.head.host.address
    told["provider"]["worker_ips"] = [site.worker.host.address]
    told["auth"]["ssh_user"] = "root"
    file = site.project / FILE
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(told))


def _serve_ssh(made: Machine, key: Path) -> None:
    _make_key(made.home / ".ssh" / "host")
    shutil.copy(key, made.home / ".ssh" / "authorized_keys")
    settings = made.home / "sshd_config"
    settings.write_text(SSHD.format(home=made.home))
    made.start("/usr/sbin/sshd", "-D", "-f", str(settings))


def test_the_token_is_its_owners_alone_on_every_host_and_nobody_gets_in_without_it(site: Site):
    for each in (site.head, site.worker):
        assert (each.home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert "local.cluster.node" in site.head.shell("ray status")
    refused = site.head.shell("RAY_AUTH_MODE=disabled RAY_AUTH_TOKEN_PATH=/dev/null ray status 2>&1 || true")
    assert "InvalidAuthToken" in refused


def test_the_dashboard_listens_on_the_heads_loopback_alone(site: Site):
    listening = [line.split()[3] for line in site.head.shell("ss -Hltn").splitlines() if ":8265" in line]
    assert listening == ["127.0.0.1:8265"]


def test_a_governed_sweep_trains_on_the_worker_with_its_ledger_on_the_heads_disk(site: Site, tmp_path: Path):
    url = f"sqlite:///{site.head.home}/rsi-ray/ledger/ledger.db"
    (site.project / "sweep.yaml").write_text(SMALL_SWEEP.format(trials=2, ledger=url, storage=tmp_path))
    site.command(f"ray rsync-up {FILE} sweep.yaml '~/sweep.yaml'")
    told = site.command(f"ray exec {FILE} 'rsi-ray run sweep.yaml --address auto'")
    assert "2 measured" in told
    assert trained_at(url) == {site.worker.host.address}
    status = f"rsi-ray status --address auto --ledger {url}"
    assert "0 sweeps are not closed, 1 are" in site.command(f"ray exec {FILE} '{status}'")


def test_ray_down_ends_the_head_and_leaves_its_ledger(site: Site):
    assert "No nodes remaining" in site.command(f"ray down --yes {FILE}")
    assert {"gcs_server", "raylet"}.isdisjoint(site.head.names())
    assert (site.head.home / "rsi-ray" / "ledger").is_dir()
