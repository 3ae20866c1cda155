"""Alerts: into which sinks one goes, and how it is repeated until somebody acknowledges it."""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from random import Random
from typing import Any, ClassVar, Protocol

from safety.errors import AlertError
from safety.http_url import http_url

_log = logging.getLogger(__name__)

# between two looks whether somebody has acknowledged it
LOOK_SECONDS = 1.0
# of what a command says that failed
_MOST_SAID = 200


class Sink(Protocol):
    """Where an alert goes."""

    @property
    def name(self) -> str:
        """How the audit calls it."""
        ...

    def send(self, alert: Mapping[str, Any]) -> None:
        """Send it once.

        Raises:
            AlertError: it was not taken.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Webhook:
    """Posts an alert as JSON; any answer of 200 to 299 takes it, and a redirection doesn't.

    Attributes:
        url: http or https; it may hold a secret, and is told to nobody.
        seconds: to wait for the whole answer.
    """

    name: ClassVar[str] = "webhook"
    url: str
    seconds: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a URL of any other kind: `file:` would be one for `urllib`."""
        http_url(self.url)

    def send(self, alert: Mapping[str, Any]) -> None:
        """Post it; see `Sink.send`."""
        headers = {"Content-Type": "application/json", "User-Agent": "rsi-ray"}
        request = urllib.request.Request(self.url, data=_text(alert).encode(), headers=headers, method="POST")
        # a socket's timeout is for each byte: an answer that trickles would take for ever
        _within(self.seconds, lambda: self._post(request))

    def _post(self, request: urllib.request.Request) -> None:
        try:
            with urllib.request.build_opener(_NoRedirection).open(request, timeout=self.seconds) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            error.close()
            raise AlertError(f"webhook: it answered {error.code}") from None
        except (OSError, HTTPException, ValueError) as error:
            cause = getattr(error, "reason", None) or error
            raise AlertError(f"webhook: {type(error).__name__}: {cause}") from None


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """What a redirection would make of a POST is a GET, without the alert."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def _within(seconds: float, act: Callable[[], None]) -> None:
    """Do it in a thread, and wait for so long.

    Raises:
        AlertError: it failed, or isn't done.
    """
    failed: list[AlertError] = []

    def run() -> None:
        try:
            act()
        except AlertError as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="alert", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise AlertError(f"webhook: no whole answer within {seconds:g} s")
    if failed:
        raise failed[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """Runs a program of yours with the alert in JSON on its standard input; 0 takes it.

    Attributes:
        argv: the program and its arguments; no shell reads them.
        seconds: after which it is killed.
    """

    name: ClassVar[str] = "command"
    argv: tuple[str, ...]
    seconds: float = 10.0

    def send(self, alert: Mapping[str, Any]) -> None:
        """Run it; see `Sink.send`."""
        try:
            done = subprocess.run(
                self.argv, input=_text(alert).encode(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                timeout=self.seconds, check=False, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise AlertError(f"command: not done within {self.seconds:g} s") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
            raise AlertError(f"command: {error}") from None
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())[:_MOST_SAID]
            raise AlertError(f"command: ended with {done.returncode}" + (f": {said}" if said else ""))


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """Writes an alert into this process's log."""

    name: ClassVar[str] = "log"

    def send(self, alert: Mapping[str, Any]) -> None:
        """Write it; see `Sink.send`."""
        _log.critical("%s", _text(alert))


def _text(alert: Mapping[str, Any]) -> str:
    return json.dumps(alert, sort_keys=True)


# --- until it is acknowledged


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How long to wait before an alert is sent again, in seconds.

    Attributes:
        first: after the first failure; it doubles with each one after it.
        most: in the end, and after a sink has taken it: that it was taken says not that somebody has read it.
    """

    first: float = 1.0
    most: float = 300.0

    def pause(self, failures: int, rng: Random) -> float:
        """Half of it at the least, by chance: what failed together shall not come together again."""
        full = self.most if failures == 0 else min(self.most, self.first * 2.0 ** min(failures - 1, 60))
        return full * rng.uniform(0.5, 1.0)


def sound(
    alert: Mapping[str, Any],
    sinks: Sequence[Sink],
    *,
    acknowledged: Callable[[], bool],
    heard: Callable[[Sink, str], None],
    pace: Pace,
    seconds: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
    rng: Random,
) -> None:
    """Send an alert into every sink, again and again, until somebody acknowledges it or the time is over.

    Args:
        alert: plain values.
        sinks: each is tried once at the least; one that fails keeps no other one from it.
        acknowledged: whether somebody has.
        heard: is told of each try what was wrong, "" for nothing.
        pace: of each sink by itself.
        seconds: for how long.
        monotonic, sleep, rng: clock in seconds, waiting and chance.
    """
    failures, due = [0] * len(sinks), [monotonic()] * len(sinks)
    until = monotonic() + seconds
    while not acknowledged():
        for place, sink in enumerate(sinks):
            if due[place] <= monotonic():
                problem = _tried(sink, alert)
                heard(sink, problem)
                failures[place] = failures[place] + 1 if problem else 0
                due[place] = monotonic() + pace.pause(failures[place], rng)
        now = monotonic()
        if now >= until:
            return
        sleep(max(0.0, min(LOOK_SECONDS, until - now, *(one - now for one in due))))


def _tried(sink: Sink, alert: Mapping[str, Any]) -> str:
    try:
        sink.send(alert)
    except AlertError as error:
        return str(error)
    return ""
