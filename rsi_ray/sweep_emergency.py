"""Emergency shutdown as a sweep by itself meets it: one whose lineage has no champions on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rsi_ray.alerts import keep
from rsi_ray.disk import WEIGHTS
from rsi_ray.emergency import FOLDER, Ports, complete, tell
from rsi_ray.errors import SweepError
from rsi_ray.plan import Plan
from rsi_ray.result import Result
from rsi_ray.versions import versions_here
from safety.actor import GovernorClient
from safety.database import without_password
from safety.emergency import Incident

Log = Callable[[], Iterable[str]]
BY = "the sweep"


def require_running(plan: Plan, governor: GovernorClient, log: Log) -> None:
    """Refuse a sweep whose lineage is frozen, after what a crash left undone of the shutdown is done.

    Raises:
        SweepError: one line that says what comes next.
    """
    incident = governor.standing_incident(plan.lineage or plan.name)
    if incident is None:
        keep(plan.folder.parent / FOLDER, plan.lineage or plan.name, plan.alerts)
        return
    incident = _completed(plan, governor, incident, log, None)
    verb = "release" if incident.is_acknowledged else "acknowledge"
    raise SweepError(
        f"lineage {incident.lineage}: frozen by incident {incident.number}: {incident.reason}; "
        f"`rsi-ray incidents {verb} {incident.number} --reason WHY` comes next"
    )


def shut_down_if_frozen(plan: Plan, governor: GovernorClient, result: Result, log: Log) -> None:
    """Save and tell what the sweep's best has done, where its lineage was shut down for it."""
    incident = governor.standing_incident(plan.lineage or plan.name)
    if incident:
        trial = (result.best or {}).get("trial_id")
        weights = plan.folder / WEIGHTS / f"{trial}.safetensors" if trial else None
        _completed(plan, governor, incident, log, weights)


def _completed(
    plan: Plan, governor: GovernorClient, incident: Incident, log: Log, weights: Path | None
) -> Incident:
    """The incident with its steps taken; not those that need the files of champions, where it has some."""
    ports = Ports(
        authority=governor,
        ledger=without_password(plan.ledger_url),
        folder=plan.folder.parent / FOLDER,
        alerts=plan.alerts,
        weights=lambda: weights if weights and weights.exists() else None,
        revert=lambda _: None,
        history=list,
        log=log,
        versions=versions_here,
        by=BY,
    )
    if not governor.promotions(incident.lineage):
        return complete(ports, incident).incident
    incident = governor.revoke_leases(incident.number, BY)
    tell(ports, incident, ["its champion is saved and reverted by the next run that has it"])
    return governor.incident(incident.number)
