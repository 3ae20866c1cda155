"""An S3 server of the tests' own: moto, in a process of its own on 127.0.0.1."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyarrow import fs

START_SECONDS = 60
BUCKET = "bucket"
# moto takes any
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests"}


class S3Server:
    """A server that can be ended and started again; what it held is gone with its process.

    Args:
        host: address that it listens at.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        with socket.socket() as probe:
            probe.bind((host, 0))
            self.host, self.port = host, int(probe.getsockname()[1])

    def start(self) -> None:
        words = [sys.executable, "-m", "moto.server", "-H", self.host, "-p", str(self.port)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(words, **quiet)
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((self.host, self.port), 1).close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        files, _ = fs.FileSystem.from_uri(self.uri("", "&allow_bucket_creation=true"))
        files.create_dir(BUCKET)

    def pause(self) -> None:
        """Answer nobody any more: who connects hears nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def uri(self, prefix: str = "runs", options: str = "") -> str:
        place = f"{BUCKET}/{prefix}" if prefix else BUCKET
        return f"s3://{place}?region=us-east-1&scheme=http&endpoint_override={self.host}:{self.port}{options}"


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server; its credentials are in this process's environment meanwhile. Skips without moto."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed: pip install 'moto[server]'")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        server = S3Server()
        try:
            server.start()
            yield server
        finally:
            server.end()
