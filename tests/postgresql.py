"""A PostgreSQL server of the tests' own, and a schema of it for each ledger."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from tests.ports import free_port

# Debian's folder for programs that only the server's owner runs
DEBIAN = "/usr/lib/postgresql/*/bin"


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`; None where there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/").glob(f"{DEBIAN[1:]}"))
    return folders[-1] if folders else None


def _as_owner() -> list[str]:
    # the server refuses to run as root
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@contextmanager
def server() -> Iterator[str]:
    """Run a server; gives its URL. Skips where PostgreSQL is not installed."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed: no initdb was found")
    # not in pytest's folder, whose parents are this user's alone
    folder = Path(tempfile.mkdtemp(prefix="rsi-ray-pg-"))
    data, port, owner = folder / "data", free_port(), _as_owner()
    if owner:
        os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    subprocess.run([*owner, found / "initdb", "-D", data, "-U", "tests", "-A", "trust"], **quiet)
    settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections=200"
    control = [*owner, found / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
    subprocess.run([*control, "-o", settings, "start"], **quiet)
    try:
        yield f"postgresql+psycopg://tests@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder)


def new_schema(server_url: str, name: str) -> str:
    """URL of an empty schema in a server's database: a ledger of its own."""
    with psycopg.connect(server_url.replace("+psycopg", "")) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"')
    return f"{server_url}?options={quote(f'-csearch_path={name}')}"
