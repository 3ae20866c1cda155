"""Alerts: into real sinks, and until they are acknowledged."""

import json
import logging
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from random import Random

import pytest

from safety.alert import Command, Log, Pace, Webhook, sound
from safety.errors import AlertError
from safety.http_url import http_url

ALERT = {"incident": 1, "reason": "it ran away"}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, self.headers["Content-Type"], json.loads(body)))
        code, wait = self.server.answer
        time.sleep(wait)
        self.send_response(code)
        if 300 <= code < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        self.do_POST()

    def log_message(self, *_):
        pass


@contextmanager
def http_server(port=0, answer=(204, 0.0)):
    """A server on this host that takes what is posted to it."""
    server = HTTPServer(("127.0.0.1", port), Handler)
    server.taken, server.answer = [], answer
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def url_of(server):
    return f"http://127.0.0.1:{server.server_port}/hook"


def test_a_webhook_posts_the_alert_as_json():
    with http_server() as server:
        Webhook(url=url_of(server)).send(ALERT)
        assert server.taken == [("/hook", "application/json", ALERT)]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [((500, 0), "answered 500"), ((404, 0), "answered 404"), ((302, 0), "answered 302")],
)
def test_an_answer_that_takes_nothing_is_a_failure_and_no_redirection_is_followed(answer, problem):
    with http_server(answer=answer) as server:
        with pytest.raises(AlertError, match=problem):
            Webhook(url=url_of(server)).send(ALERT)
        assert [path for path, _, _ in server.taken] == ["/hook"]


@pytest.mark.alone
def test_a_webhook_that_is_slow_or_down_is_given_up_after_its_time_and_its_url_is_not_told():
    with http_server(answer=(204, 0.5)) as server:
        began = time.monotonic()
        with pytest.raises(AlertError, match="webhook"):
            Webhook(url=url_of(server), seconds=0.05).send(ALERT)
        assert time.monotonic() - began < 0.4
    with pytest.raises(AlertError, match="webhook: URLError") as caught:
        Webhook(url=f"http://127.0.0.1:{server.server_port}/secret", seconds=5).send(ALERT)
    assert "secret" not in str(caught.value)


def test_an_answer_that_trickles_is_given_up_too():
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def trickle():
            taken, _ = listening.accept()
            with taken, suppress(OSError):
                taken.sendall(b"HTTP/1.1 200 OK\r\n")
                while not over.wait(0.05):
                    taken.sendall(b"x: y\r\n")

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        with pytest.raises(AlertError, match=r"webhook: no whole answer within 0.2 s"):
            Webhook(url=f"http://127.0.0.1:{listening.getsockname()[1]}/hook", seconds=0.2).send(ALERT)
        assert time.monotonic() - began < 1
        over.set()
        thread.join()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "http://", "hook", "", None, 3, "http://a b", "http://h:x/"]
)
def test_a_webhook_is_a_url_of_http_or_https_and_no_other(url):
    with pytest.raises(ValueError, match="expected a URL that begins with http:// or https://"):
        http_url(url)
    with pytest.raises(ValueError, match="expected a URL"):
        Webhook(url=url)


def test_a_command_gets_the_alert_on_its_standard_input_and_no_shell_reads_it(tmp_path):
    out = tmp_path / "out; touch oops"
    program = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    Command(argv=(sys.executable, "-c", program, str(out))).send(ALERT)
    assert json.loads(out.read_text()) == ALERT
    assert [path.name for path in tmp_path.iterdir()] == ["out; touch oops"]


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import sys; print('no\\nroute', file=sys.stderr); sys.exit(3)", "command: ended with 3: no route"),
        ("import time; time.sleep(60)", "command: not done within 0.3 s"),
    ],
)
def test_a_command_that_fails_or_hangs_has_not_taken_it(program, problem):
    with pytest.raises(AlertError, match=problem):
        Command(argv=(sys.executable, "-c", program), seconds=0.3 if "sleep" in program else 30).send(ALERT)


def test_a_command_that_is_not_there_has_not_taken_it():
    with pytest.raises(AlertError, match="command: "):
        Command(argv=("/no/such/program",)).send(ALERT)


def test_a_log_has_it_in_one_line(caplog):
    with caplog.at_level(logging.CRITICAL):
        Log().send(ALERT)
    assert json.loads(caplog.records[0].message) == ALERT


# --- until it is acknowledged


class Fake:
    """A sink that fails so many times, a clock that moves by sleeping alone, and what was heard of it."""

    def __init__(self, name="webhook", failures=0):
        self.name, self.failures = name, failures
        self.sent, self.heard, self.now = [], [], 0.0

    def send(self, alert):
        self.sent.append(self.now)
        if len(self.sent) <= self.failures:
            raise AlertError("down")

    def sleep(self, seconds):
        self.now += seconds


def sounded(sinks, *, acknowledged, seconds=10_000.0, pace=None):
    clock = sinks[0]

    def sleep(seconds):
        for sink in sinks:
            sink.sleep(seconds)

    sound(
        ALERT, sinks, acknowledged=acknowledged, heard=lambda sink, problem: sink.heard.append(problem),
        pace=pace or Pace(first=1.0, most=60.0), seconds=seconds, monotonic=lambda: clock.now, sleep=sleep,
        rng=Random(0),
    )  # fmt: skip


def test_a_sink_that_fails_is_tried_again_with_growing_pauses_up_to_the_longest():
    sink = Fake(failures=100)
    sounded([sink], acknowledged=lambda: len(sink.sent) == 12)
    pauses = [later - earlier for earlier, later in zip(sink.sent, sink.sent[1:], strict=False)]
    for number, pause in enumerate(pauses):
        full = min(60.0, 2.0**number)
        assert full / 2 <= pause <= full + 1e-9
    assert len({round(pause / min(60.0, 2.0**n), 6) for n, pause in enumerate(pauses)}) > 5  # by chance
    assert sink.heard == ["down"] * 12


def test_a_sink_that_took_it_is_reminded_seldom_until_somebody_acknowledges():
    sink = Fake(failures=2)
    sounded([sink], acknowledged=lambda: len(sink.sent) == 5)
    assert sink.heard == ["down", "down", "", "", ""]
    assert all(later - earlier >= 30 for earlier, later in zip(sink.sent[2:], sink.sent[3:], strict=False))


def test_a_sink_that_fails_keeps_no_other_one_from_it():
    broken, sound_one = Fake(failures=100), Fake("command")
    sounded([broken, sound_one], acknowledged=lambda: bool(sound_one.sent))
    assert (broken.heard, sound_one.heard) == (["down"], [""])


def test_what_is_acknowledged_already_is_sent_to_nobody_and_without_time_each_sink_gets_it_once():
    sink = Fake()
    sounded([sink], acknowledged=lambda: True)
    assert sink.sent == []
    sounded([sink], acknowledged=lambda: False, seconds=0.0)
    assert sink.sent == [0.0]


def test_an_acknowledgement_is_seen_within_a_second():
    sink = Fake()
    sounded([sink], acknowledged=lambda: sink.now >= 5.0)
    assert 5.0 <= sink.now <= 6.0
