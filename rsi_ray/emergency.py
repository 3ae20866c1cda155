"""Emergency shutdown of a lineage: stop it, save it, take its champion back, tell people."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from rsi_ray import alerts, incident_folder
from rsi_ray.alerts import AlertsConfig
from rsi_ray.errors import RunError
from rsi_ray.incident_folder import State
from safety import Champion, Deny, Promotion, SafetyError, artifact_digest
from safety.audit import Row
from safety.emergency import Incident, Step

_log = logging.getLogger(__name__)

# in the storage
FOLDER = "incidents"
# between two looks whether the workers are gone
LOOK_SECONDS = 0.2


class Authority(alerts.Acknowledged, Protocol):
    """What a shutdown asks: a `Ledger`, a `Governor`, or the client of its actor."""

    def shut_down(self, lineage: str, reason: str, by: str) -> Incident:
        """Freeze a lineage until it is released; twice is once."""
        ...

    def revoke_leases(self, number: int, by: str) -> Incident:
        """Renew no lease of the lineage any more."""
        ...

    def leases_left(self, number: int) -> int:
        """How many leases of the lineage are not over."""
        ...

    def revert(self, number: int, by: str) -> str:
        """Make the last known safe champion the lineage's present one; the artifact that it is at."""
        ...

    def current_champion(self, lineage: str) -> Champion | None:
        """The champion that a lineage is at."""
        ...

    def promotions(self, lineage: str) -> list[Promotion]:
        """The promotions of a lineage, in order."""
        ...

    def audit_page(self, after: int) -> list[Row]:
        """The next rows of the audit behind a number."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What a shutdown works on.

    Attributes:
        authority: the ledger, or who fronts it.
        ledger: its URL, without a password.
        folder: of all incidents.
        alerts: where it is told.
        weights: file of the present champion; None where there is none.
        revert: makes this artifact the champion on disk, "" for what the lineage began with; gives its file,
            or None where there is none. Twice must be once.
        history: the modifications, as plain values.
        log: lines of this process's log.
        versions: of what is installed.
        by: who does it.
        worker_seconds: for how long the workers' end is waited for; they die by their leases anyway.
        monotonic, sleep: clock in seconds, and waiting.
    """

    authority: Authority
    ledger: str
    folder: Path
    alerts: AlertsConfig
    weights: Callable[[], Path | None]
    revert: Callable[[str], Path | None]
    history: Callable[[], Any]
    log: Callable[[], Iterable[str]]
    versions: Callable[[], Mapping[str, str]]
    by: str
    worker_seconds: float = 30.0
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, kw_only=True)
class Shutdown:
    """What came of a shutdown.

    Attributes:
        incident: with the steps that were taken.
        problems: what could not be done; the lineage is frozen all the same.
    """

    incident: Incident
    problems: tuple[str, ...]


def shut_down(ports: Ports, lineage: str, reason: str) -> Shutdown:
    """Freeze a lineage, and do all that follows from it; one that is frozen already goes on where it stopped.

    Raises:
        SafetyError: it can't be frozen: nobody can tell the ledger.
    """
    return complete(ports, ports.authority.shut_down(lineage, reason, ports.by))


def complete(ports: Ports, incident: Incident) -> Shutdown:
    """Take the steps that are left of a shutdown, each once, whatever process took those before.

    A step that fails keeps the ones after it waiting, but not the alert.

    Raises:
        SafetyError: the ledger can't be asked.
    """
    problems: list[str] = []
    for step, take in _STEPS.items():
        if incident.step(step):
            continue
        try:
            incident = take(ports, incident)
        except Exception as error:  # whatever a port does, people are told
            problems.append(f"not {step}: {error}")
            _note(ports, incident, step, problems[-1])
            break
    tell(ports, incident, problems)
    return Shutdown(incident=ports.authority.incident(incident.number), problems=tuple(problems))


def _note(ports: Ports, incident: Incident, step: Step, problem: str) -> None:
    _log.error("incident %d of lineage %s: %s", incident.number, incident.lineage, problem)
    with suppress(SafetyError):
        ports.authority.note_once(f"incident-{incident.number}", Deny(f"shut_down.{step}", problem))


def tell(ports: Ports, incident: Incident, problems: Sequence[str]) -> None:
    """Alert people of a shutdown and of what could not be done, where nobody has acknowledged it."""
    if incident.is_acknowledged:
        return
    # people were told for long enough by the run that shut it down: once more is a reminder
    seconds = 0.0 if incident.step("alerted") else ports.alerts.patience
    alerts.ring(
        ports.authority, incident, alerts.sinks_of(ports.alerts), ports.alerts.pace,
        problems=problems, ledger=ports.ledger, by=ports.by,
        seconds=seconds, monotonic=ports.monotonic, sleep=ports.sleep,
    )  # fmt: skip


# --- its steps


def _revoke(ports: Ports, incident: Incident) -> Incident:
    return ports.authority.revoke_leases(incident.number, ports.by)


def _save(ports: Ports, incident: Incident) -> Incident:
    folder = ports.folder / incident.name
    left = _wait_for_workers(ports, incident)
    if not incident_folder.is_saved(folder):
        champion = ports.authority.current_champion(incident.lineage)
        state = State(
            ledger=_ledger_state(ports, incident, champion, left),
            history=ports.history(),
            audit=_audit(ports.authority),
            log=ports.log(),
            versions=ports.versions(),
            weights=ports.weights(),
            expected=champion.artifact if champion else "",
        )
        incident_folder.save(folder, incident, state)
    return ports.authority.take_step(incident.number, "saved", ports.by, str(folder))


def _wait_for_workers(ports: Ports, incident: Incident) -> int:
    """Wait until no lease of the lineage is open, or the time is over; how many are left."""
    until = ports.monotonic() + ports.worker_seconds
    while (left := ports.authority.leases_left(incident.number)) and ports.monotonic() < until:
        ports.sleep(LOOK_SECONDS)
    return left


def _ledger_state(ports: Ports, incident: Incident, champion: Champion | None, leases: int) -> dict[str, Any]:
    promotions = ports.authority.promotions(incident.lineage)
    return {
        "lineage": incident.lineage,
        "champion": asdict(champion) if champion else None,
        "safe": incident.safe,
        "promotions": [asdict(promotion) for promotion in promotions],
        "open_leases": leases,
    }


def _audit(authority: Authority) -> Iterator[Row]:
    page = authority.audit_page(0)
    while page:
        yield from page
        page = authority.audit_page(page[-1][0])


def _revert(ports: Ports, incident: Incident) -> Incident:
    artifact = ports.authority.revert(incident.number, ports.by)
    path = ports.revert(artifact)
    # what lies on disk is what counts, not what is said of it
    found = artifact_digest(path) if path else ""
    if artifact and found != artifact:
        where = path or "no file of it"
        raise RunError(f"champion {where}: expected the digest {artifact}, found {found or 'none'}")
    return ports.authority.take_step(incident.number, "reverted", ports.by, artifact)


_STEPS: dict[Step, Callable[[Ports, Incident], Incident]] = {
    "revoked": _revoke,
    "saved": _save,
    "reverted": _revert,
}
