"""A worker's host without the driver's folder: weights go through an S3 server on the head's host."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.hosts import Cluster, Host, network, obstacle
from tests.s3_server import BUCKET, KEYS
from tests.small_sweep import SMALL_SWEEP, trained_at

WHY_NOT = obstacle() or ("" if importlib.util.find_spec("moto") else "moto is not installed")
pytestmark = [pytest.mark.ray, pytest.mark.processes, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

PORT = 5000
HIDE = 'mount -t tmpfs none "$0" && exec "$@"'
MAKE_BUCKET = """
import socket, sys, time
from pyarrow import fs
host, port, uri, bucket = sys.argv[1:]
for _ in range(600):
    try:
        socket.create_connection((host, int(port)), 1).close()
        break
    except OSError:
        time.sleep(0.1)
fs.FileSystem.from_uri(uri + "&allow_bucket_creation=true")[0].create_dir(bucket)
"""


class Apart(Cluster):
    """Hosts of which only the head has a folder, and only the other one trains."""

    hidden = Path("/nowhere")

    def run(self, host: Host, *command: str) -> subprocess.Popen[bytes]:
        if "--head" in command:
            command = (*command, "--num-cpus=0")
        elif host is not self.head:
            command = ("unshare", "--mount", "sh", "-c", HIDE, str(self.hidden), *command)
        return super().run(host, *command)


def test_a_host_without_the_drivers_folder_trains_candidates_whose_weights_the_driver_gets(tmp_path: Path):
    storage = tmp_path / "runs"
    storage.mkdir()
    with network(2) as hosts:
        folder = Path(f"/tmp/{hosts[0].space}")
        folder.mkdir(mode=0o700)
        made = Apart(hosts, folder, KEYS)
        made.hidden = storage
        try:
            made.start()
            artifacts = _served(made)
            ledger = f"sqlite:///{tmp_path}/ledger.db"
            text = SMALL_SWEEP.format(trials=3, ledger=ledger, storage=storage)
            (tmp_path / "sweep.yaml").write_text(f"{text}artifacts: {artifacts}\n")
            words = ["run", str(tmp_path / "sweep.yaml"), "--address", made.address]
            ended = made.run(made.head, sys.executable, "-m", "rsi_ray", *words).wait(240)
            assert ended == 0, made.logs()
            words = ["doctor", "--artifacts", artifacts, "--storage", str(storage), "--address", made.address]
            made.run(made.head, sys.executable, "-m", "rsi_ray", *words).wait(120)
            assert f"every node reads and writes {artifacts}" in made.logs()
        finally:
            for host in hosts:
                host.kill()
            shutil.rmtree(folder, ignore_errors=True)
    (table,) = [pd.read_parquet(path) for path in storage.glob("*/results.parquet")]
    assert list(table["verdict"]) == ["measured"] * 3
    assert {path.stem for path in storage.glob("*/weights/*")} == set(table["trial_id"])
    assert trained_at(ledger) == {hosts[1].address}


def _served(made: Cluster) -> str:
    """A server on the head's host; the URI of a prefix of its bucket."""
    address = made.head.address
    made.run(made.head, sys.executable, "-m", "moto.server", "-H", address, "-p", str(PORT))
    uri = f"s3://{BUCKET}/runs?region=us-east-1&scheme=http&endpoint_override={address}:{PORT}"
    words = ["-c", MAKE_BUCKET, address, str(PORT), uri, BUCKET]
    assert made.run(made.head, sys.executable, *words).wait(90) == 0, made.logs()
    return uri
