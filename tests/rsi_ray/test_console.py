"""The kill switch over HTTP: a real server in a process of its own, and real requests."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from rsi_ray.console.door import MOST_UNKNOWN, UNKNOWN_SECONDS
from rsi_ray.console.rules import refusal
from safety import Ledger
from safety.kill_file import NAME as KILL_FILE
from safety.token import TOKEN_FILE
from tests import postgresql
from tests.conftest import Command
from tests.safety.fakes import limits, request

PROGRAM = "from rsi_ray.cli import main; main()"


@dataclass(frozen=True)
class Server:
    """A server that listens, and the folder of its ledger."""

    process: subprocess.Popen[str]
    port: int
    folder: Path

    @property
    def token(self) -> str:
        return (self.folder / TOKEN_FILE).read_text()

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str | None
    ) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
        """Status, answer and headers; a header that is None is not sent."""
        given = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {self.token}", **headers}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.putrequest(method, path, skip_host=True)
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), answer.headers

    def kill(self, **told: object) -> tuple[int, dict[str, Any]]:
        return self.ask("POST", "/kill", json.dumps(told).encode())[:2]


Serve = Callable[..., Server]


def started(folder: Path, *options: str) -> Server:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve", "--storage", str(folder), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Listening at http://"), line
    return Server(process, int(line.split(",")[0].rpartition(":")[2]), folder)


def opened(folder: Path) -> Ledger:
    ledger = Ledger(f"sqlite:///{folder}/ledger.db")
    ledger.open_sweep("s", limits())
    ledger.reserve(request())
    return ledger


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server for the ledger in the test's folder."""
    servers: list[Server] = []

    def start(*options: str, folder: Path = tmp_path) -> Server:
        servers.append(started(folder, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.communicate()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = opened(tmp_path)
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has a name, for requests that change nothing."""
    folder = tmp_path_factory.mktemp("guarded")
    ledger = opened(folder)
    server = started(folder, "--name", "head.cluster")
    yield server
    server.process.kill()
    server.process.communicate()
    assert ledger.killed() is None
    ledger.close()


def test_a_kill_over_http_is_the_durable_one(ledger: Ledger, serve: Serve):
    server = serve()
    assert server.kill(reason="fire", by="ann") == (200, {"killed": True, "leases": 1})
    thrown = ledger.killed()
    assert thrown
    assert (thrown.reason, thrown.by, ledger.pulse("s")) == ("fire", "ann", "killed")
    assert not (server.folder / KILL_FILE).exists()
    assert server.kill(reason="again")[0] == 200
    last = [json.loads(entry.detail) for _, entry, _ in ledger.audit() if entry.kind == "kill"][-1]
    assert last == {"reason": "again", "by": "HTTP from 127.0.0.1"}


def test_the_status_is_that_of_the_command(ledger: Ledger, serve: Serve, command_here: Command):
    server = serve()
    code, told, headers = server.ask("GET", "/status")
    _, printed, _ = command_here("status", "--json", "--ledger-only", "--storage", str(server.folder))
    of_command = json.loads(printed)
    assert code == 200
    assert headers["Content-Type"].startswith("application/json")
    assert headers["Cache-Control"] == "no-store"
    assert {**told, "at": of_command["at"]} == of_command
    assert told["sweeps"][0]["leases"][0]["key"] == "s/1"


def test_the_token_is_made_once_for_its_owner_alone(ledger: Ledger, serve: Serve, tmp_path: Path):
    first = serve()
    token = first.token
    assert (first.folder / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    assert serve().token == token
    assert token not in first.process.args  # type: ignore[operator]


@pytest.mark.parametrize(
    "shown", [None, "", "Bearer", "Bearer wrong", "Basic {}", "{}", "Bearer {}x", "Bearer \xe9"]
)
def test_nothing_is_answered_without_the_token(guarded: Server, shown: str | None):
    asked = shown and shown.format(guarded.token)
    for method, path in (("POST", "/kill"), ("GET", "/status"), ("GET", "/elsewhere")):
        code, told, headers = guarded.ask(method, path, b'{"reason": "x"}', Authorization=asked)
        assert (code, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert told == {"error": "Authorization: expected Bearer and the token"}


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:80", 200),
        ("head.cluster:8280", 200),
        ("HEAD.cluster", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example:8280", 403),
        ("[::1", 403),
        ("", 400),
    ],
)
def test_a_page_that_has_a_name_lead_here_is_refused(guarded: Server, host: str, code: int):
    assert guarded.ask("GET", "/status", Host=host)[0] == code


def test_a_request_that_names_no_host_is_refused():
    refused = refusal(None, "Bearer t", (), "t")
    assert refused
    assert (refused.status, refused.reason) == (400, "Host: missing, and required")


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "expected"),
    [
        ("POST", "/kill", b"", 400, "body: not valid JSON"),
        ("POST", "/kill", b"[" * 9000, 400, "body: not valid JSON"),
        ("POST", "/kill", b"[]", 400, "body: expected a mapping"),
        ("POST", "/kill", b"{}", 400, "body: reason: missing, and required"),
        ("POST", "/kill", b'{"reason": 7}', 400, "body: reason: expected text, found 7"),
        ("POST", "/kill", b'{"reason": " "}', 400, "body: reason: expected text of 1 to 1000 characters"),
        ("POST", "/kill", b'{"reason": "x", "who": "y"}', 400, "body: who: unknown key"),
        ("POST", "/kill", b'{"reason": "%s"}' % (b"x" * 1001), 400, "expected text of 1 to 1000"),
        ("POST", "/kill", b" " * 20_000, 413, "body: expected at most 16,384 bytes"),
        ("GET", "/kill", b"", 405, "GET: expected GET /status or POST /kill"),
        ("POST", "/status", b"", 405, "POST: expected GET /status or POST /kill"),
        ("GET", "/../ledger.db", b"", 404, "expected GET /status or POST /kill"),
    ],
)
def test_what_is_asked_wrongly_is_answered_in_one_line_and_kills_nothing(
    guarded: Server, method: str, path: str, body: bytes, code: int, expected: str
):
    found, told, headers = guarded.ask(method, path, body)
    assert (found, list(told)) == (code, ["error"])
    assert expected in told["error"]
    assert "\n" not in told["error"]
    assert headers["Content-Type"].startswith("application/json")
    assert ("Allow" in headers) == (code == 405)


def test_a_kill_that_the_ledger_does_not_take_becomes_the_file_that_kills(ledger: Ledger, serve: Serve):
    server = serve()
    assert server.ask("GET", "/status")[0] == 200
    other = sqlite3.connect(server.folder / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    code, told = server.kill(reason="fire\nin rack 4", by="ann")
    assert time.monotonic() - began < 5
    file = server.folder / KILL_FILE
    assert (code, told["killed"], told["kill_file"]) == (503, False, str(file))
    assert told["error"] == "the ledger has not taken it within 2 s"
    assert file.read_text() == "fire in rack 4 (by ann)"
    other.execute("ROLLBACK")
    other.close()
    until = time.monotonic() + 20
    while ledger.killed() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert server.ask("GET", "/status")[1]["kill_file"] == "fire in rack 4 (by ann)"


def test_a_ledger_that_goes_away_is_answered_with_503(serve: Serve, tmp_path: Path):
    with postgresql.server() as url:
        Ledger(url).close()
        server = serve("--ledger", url)
        assert server.ask("GET", "/status")[0] == 200
    code, told, _ = server.ask("GET", "/status")
    assert (code, list(told)) == (503, ["error"])
    code, told = server.kill(reason="fire", by="ann")
    assert (code, told["kill_file"]) == (503, str(tmp_path / KILL_FILE))
    assert (tmp_path / KILL_FILE).read_text() == "fire (by ann)"


def test_a_server_listens_though_its_ledger_is_away_and_tells_no_password(serve: Serve, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = serve("--ledger", f"postgresql+psycopg://ann:secret@127.0.0.1:{port}/none")
    code, told, _ = server.ask("GET", "/status")
    assert (code, "cannot be opened" in told["error"], "secret" in told["error"]) == (503, True, False)
    assert server.kill(reason="fire")[0] == 503
    assert (tmp_path / KILL_FILE).exists()
    server.process.send_signal(signal.SIGTERM)
    _, errors = server.process.communicate(timeout=10)
    assert "it is tried again with each request" in errors
    assert "secret" not in errors


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system is mounted")
def test_a_kill_on_a_full_disk_becomes_an_empty_file(serve: Serve, tmp_path: Path):
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        opened(folder).close()
        server = serve(folder=folder)
        assert server.ask("GET", "/status")[0] == 200
        with suppress(OSError), (folder / "full").open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()
        code, told = server.kill(reason="fire" * 200)
        file_there = (folder / KILL_FILE).exists()
        server.process.kill()
        server.process.wait()
    finally:
        subprocess.run(["umount", folder], check=True)
    assert (code, told["kill_file"], file_there) == (503, str(folder / KILL_FILE), True)


def test_a_refusal_is_one_line_of_the_log_whatever_was_asked_for(ledger: Ledger, serve: Serve):
    server = serve()
    assert server.ask("GET", "/a%0Aforged%1B", Authorization="Bearer x")[0] == 401
    server.process.send_signal(signal.SIGTERM)
    _, errors = server.process.communicate(timeout=10)
    assert errors == (
        "GET /a\\nforged\\x1b of 127.0.0.1 is refused: Authorization: expected Bearer and the token\n"
    )


def connected(server: Server, *sent: bytes) -> socket.socket:
    """A connection on which something is sent, and no more."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    for part in sent:
        connection.sendall(part)
    return connection


def is_closed(connection: socket.socket, within: float) -> bool:
    """Whether the other side closes it in so many seconds, whatever it sends before."""
    until = time.monotonic() + within
    with suppress(TimeoutError):
        while (left := until - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                if not connection.recv(65_536):
                    return True
            except ConnectionError:
                return True
    return False


REFUSED = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"POST /kill HTTP/1.1\r\nHost: local", REFUSED])
def test_a_connection_that_does_not_show_the_token_in_time_is_closed(guarded: Server, sent: bytes):
    with connected(guarded, sent) as connection:
        assert is_closed(connection, within=UNKNOWN_SECONDS + 20)


def test_a_connection_that_sends_little_by_little_is_closed_too(guarded: Server):
    with connected(guarded, b"GET /status HTTP/1.1\r\nHost: localhost\r\n") as connection:
        until = time.monotonic() + UNKNOWN_SECONDS + 20
        with suppress(ConnectionError):
            while not is_closed(connection, within=0.5):
                assert time.monotonic() < until
                connection.sendall(b"X-More: more\r\n")


def test_a_connection_that_has_shown_the_token_stays(guarded: Server):
    request = REFUSED.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer %s\r\n\r\n" % guarded.token.encode())
    with connected(guarded, request) as connection:
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")
        assert not is_closed(connection, within=UNKNOWN_SECONDS + 1)
        connection.settimeout(30)
        connection.sendall(request)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")


def test_a_kill_goes_through_beside_any_number_of_connections_that_wait(ledger: Ledger, serve: Serve):
    server = serve()
    waiting = [connected(server) for _ in range(MOST_UNKNOWN + 6)]
    assert server.kill(reason="fire")[0] == 200
    # seven too many, with the one that killed
    closed = [is_closed(connection, within=0.3) for connection in waiting[:7]]
    assert closed == [True] * 7
    assert len(psutil.Process(server.process.pid).net_connections()) <= MOST_UNKNOWN + 1
    for connection in waiting:
        connection.close()


def test_sigterm_ends_it_cleanly(ledger: Ledger, serve: Serve):
    server = serve()
    assert server.kill(reason="fire")[0] == 200
    server.process.send_signal(signal.SIGTERM)
    out, errors = server.process.communicate(timeout=10)
    assert (server.process.returncode, out, errors) == (0, "", "")


def test_it_loads_neither_torch_nor_ray(ledger: Ledger, serve: Serve):
    server = serve()
    mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "aiohttp" in mapped
    assert "/torch/" not in mapped
    assert "_raylet" not in mapped


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "head.cluster", ""])
def test_a_public_address_is_refused_with_the_flag_that_would_allow_it(
    ledger: Ledger, command_here: Command, tmp_path: Path, host: str
):
    code, out, errors = command_here("serve", "--storage", str(tmp_path), "--host", host)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert "--allow-public" in errors
    assert not (tmp_path / TOKEN_FILE).exists()


def test_the_flag_allows_it(ledger: Ledger, serve: Serve):
    server = serve("--host", "0.0.0.0", "--allow-public")
    assert server.ask("GET", "/status")[0] == 200
    assert server.ask("GET", "/status", Authorization=None)[0] == 401


def test_a_port_that_is_taken_is_told_in_one_line(ledger: Ledger, command_here: Command, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, errors = command_here("serve", "--storage", str(tmp_path), "--port", port)
    assert (code, errors) == (
        2,
        f"rsi-ray: serve: 127.0.0.1 port {port}: can't be listened at: Address already in use\n",
    )


def test_a_token_that_others_may_read_is_refused(ledger: Ledger, command_here: Command, tmp_path: Path):
    (tmp_path / TOKEN_FILE).write_text("x" * 40)
    os.chmod(tmp_path / TOKEN_FILE, 0o644)
    code, _, errors = command_here("serve", "--storage", str(tmp_path))
    assert (code, "others may read it (mode 644)" in errors, errors.count("\n")) == (1, True, 1)
