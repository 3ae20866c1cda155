"""Where it is told that a lineage was shut down, and how long; kept for whoever goes on after a crash."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, Field

from rsi_ray.durable import write_durably
from safety import Deny, Document, DocumentError, SafetyError, StrictModel, validate
from safety.alert import Command, Log, Pace, Sink, Webhook, sound
from safety.emergency import Incident, Step
from safety.http_url import http_url
from safety.report import utc

Seconds = Annotated[float, Field(gt=0, le=86_400)]
WebhookUrl = Annotated[str, BeforeValidator(http_url)]


class AlertsConfig(StrictModel):
    """Who is told that a lineage was shut down, until somebody acknowledges it; it is in the log always."""

    webhook: WebhookUrl | None = Field(
        default=None, description="URL of http or https that the alert is posted to, as JSON"
    )
    command: list[str] = Field(
        default=[],
        description="program and its arguments, read by no shell; it gets the alert in JSON on its standard "
        "input",
    )
    timeout_seconds: Seconds = Field(default=10.0, description="after which a try is given up")
    retry_seconds: Seconds = Field(
        default=1.0, description="pause after the first try that failed; it doubles with each one after it"
    )
    longest_seconds: Seconds = Field(
        default=300.0, description="longest pause, and the one before a sink that took it is reminded"
    )
    seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=60.0,
        description="for how long a run that was shut down goes on telling it where nobody acknowledges; "
        "`rsi-ray incidents` and the next run go on",
    )

    @property
    def patience(self) -> float:
        """For how long a run tells it, seconds; into the log alone it tells it once."""
        return self.seconds if self.webhook or self.command else 0.0

    @property
    def pace(self) -> Pace:
        """How it is repeated."""
        return Pace(first=self.retry_seconds, most=self.longest_seconds)


class Acknowledged(Protocol):
    """What an alert asks of a ledger, or of a governor's client."""

    def incident(self, number: int) -> Incident:
        """A shutdown by its number."""
        ...

    def take_step(self, number: int, step: Step, by: str, told: str = "") -> Incident:
        """Write a step down."""
        ...

    def note_once(self, key: str, denial: Deny) -> bool:
        """Record an incident of no sweep, once."""
        ...


def sinks_of(config: AlertsConfig, *, log: bool = True) -> list[Sink]:
    """Where alerts go, what can't be unreachable first; into the log of this process too, or not."""
    sinks: list[Sink] = [Log()] if log else []
    if config.command:
        sinks.append(Command(argv=tuple(config.command), seconds=config.timeout_seconds))
    if config.webhook:
        sinks.append(Webhook(url=config.webhook, seconds=config.timeout_seconds))
    return sinks


def keep(folder: Path, lineage: str, config: AlertsConfig) -> None:
    """Write down where a lineage's alerts go, where that isn't into the log alone.

    The URL may hold a secret: its owner alone reads the file.

    Args:
        folder: of the incidents.
        lineage: its name.
        config: of its newest run.
    """
    path = _file(folder, lineage)
    if config == AlertsConfig() and not path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(path, config.model_dump_json().encode(), mode=0o600)


def kept(folder: Path, lineage: str) -> AlertsConfig:
    """Where a lineage's alerts go; into the log alone where nobody wrote it down.

    Raises:
        DocumentError: what was written down is no longer what it was.
    """
    path = _file(folder, lineage)
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return AlertsConfig()
    except (OSError, ValueError) as error:
        raise DocumentError(f"{path}: cannot be read: {error}") from None
    return validate(AlertsConfig, Document(source=str(path), data=data))


def _file(folder: Path, lineage: str) -> Path:
    return folder / f"{lineage}.alerts.json"


def alert_of(incident: Incident, problems: Sequence[str], ledger: str) -> dict[str, Any]:
    """What an alert says: plain values.

    Args:
        incident: that it is about.
        problems: what of the shutdown could not be done yet.
        ledger: its URL, without a password.
    """
    return {
        "format": 1,
        "incident": incident.number,
        "at": utc(incident.at_ms),
        "lineage": incident.lineage,
        "sweep": incident.sweep,
        "rule": incident.rule,
        "reason": incident.reason,
        "by": incident.by,
        "done": [done.step for done in incident.done],
        "problems": list(problems),
        "ledger": ledger,
        "acknowledge": f"rsi-ray incidents acknowledge {incident.number} --reason WHY",
    }


def ring(
    authority: Acknowledged,
    incident: Incident,
    sinks: Sequence[Sink],
    pace: Pace,
    *,
    problems: Sequence[str],
    ledger: str,
    by: str,
    seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    rng: Random | None = None,
) -> None:
    """Alert until somebody acknowledges it, for so long; what fails is audited once and stops nothing.

    Args:
        authority: the ledger, or a governor's client.
        incident: that it is about.
        sinks: where to; the alert is taken when all of them have taken it.
        pace: of its repetition.
        problems: what of the shutdown could not be done yet.
        ledger: its URL, without a password.
        by: who tells it.
        seconds: for how long; each sink is tried once at the least.
        monotonic, sleep, rng: clock in seconds, waiting and chance.
    """
    number = incident.number
    left = {sink.name for sink in sinks}

    def heard(sink: Sink, problem: str) -> None:
        with suppress(SafetyError):  # of a ledger that is away: the lineage is frozen in it all the same
            if problem:
                authority.note_once(f"incident-{number}", Deny(f"alert.{sink.name}", problem))
                return
            left.discard(sink.name)
            if not left:
                authority.take_step(number, "alerted", by, ", ".join(one.name for one in sinks))

    def acknowledged() -> bool:
        try:
            return authority.incident(number).is_acknowledged
        except SafetyError:
            return False

    sound(
        alert_of(incident, problems, ledger), sinks, acknowledged=acknowledged, heard=heard,
        pace=pace, seconds=seconds,
        monotonic=monotonic, sleep=sleep, rng=rng or Random(os.urandom(8)),
    )  # fmt: skip
