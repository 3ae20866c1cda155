"""Which steps of a shutdown are right, by the order that they must have and what people have decided."""

from __future__ import annotations

from dataclasses import dataclass, field

from safety.approval import Request
from safety.limits import Limits
from safety.simulation.feed import IncidentChange, RollbackChange, StepChange, SweepChange
from safety.simulation.promotions import People
from safety.simulation.violation import Call, require

# what each step needs, and the calls that may take it
_BEFORE = {
    "frozen": (),
    "revoked": ("frozen",),
    "saved": ("frozen", "revoked"),
    "reverted": ("frozen", "revoked", "saved"),
    "alerted": ("frozen",),
    "acknowledged": ("frozen",),
    "released": ("frozen", "revoked", "saved", "reverted", "acknowledged"),
}
_JUDGES = ("shut_down", "promote", "judge_improvement")
_BY = {
    "frozen": _JUDGES,
    "revoked": ("revoke_leases",),
    "acknowledged": ("acknowledge",),
    "released": ("release",),
}


@dataclass(kw_only=True, slots=True)
class _Incident:
    number: int
    sweep: str
    digest: str
    # the champion that must not stand any more when it is reverted
    champion: str
    steps: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Shutdowns:
    """Follows every shutdown of a ledger, whose lineages have a sweep each.

    Attributes:
        people: what was promoted, asked and decided.
        standing: by the sweep whose lineage is shut down.
        known: all of them, by number.
    """

    people: People
    standing: dict[str, _Incident] = field(default_factory=dict)
    known: dict[int, _Incident] = field(default_factory=dict)

    def begin(self, call: Call, row: IncidentChange) -> None:
        """Check that a shutdown begins.

        Raises:
            Violated: its lineage is shut down already.
        """
        require(
            row.lineage not in self.standing, "I11", f"{row.lineage} was shut down twice by {call.method}"
        )
        parent, _ = self.people.next_of(row.lineage)
        incident = _Incident(number=row.id, sweep=row.sweep, digest=row.digest, champion=parent)
        self.standing[row.lineage] = self.known[row.id] = incident

    def follow(self, call: Call, row: StepChange, limits: Limits) -> None:
        """Check that a step is taken.

        Raises:
            Violated: it was taken before, it is too early, or people have not allowed it.
        """
        incident = self.known[row.incident]
        told = f"incident {row.incident} was {row.step} by {call.method}"
        require(row.step not in incident.steps, "I11", f"{told} twice")
        before = [step for step in _BEFORE[row.step] if step not in incident.steps]
        require(not before, "I11", f"{told} before it was {', '.join(before)}")
        require(call.method in _BY.get(row.step, ("take_step",)), "I11", told)
        incident.steps.add(row.step)
        if row.step == "reverted":
            stands, _ = self.people.next_of(incident.sweep)
            require(not stands or stands != incident.champion, "I11", f"{told}, and {stands} stands")
        if row.step == "released":
            self._require_approved(incident, limits, told)
            del self.standing[incident.sweep]

    def _require_approved(self, incident: _Incident, limits: Limits, told: str) -> None:
        if not limits.approval.is_named:
            return
        allowed = [one for one in self.wanted(incident) if self.people.agree(one, limits)]
        require(bool(allowed), "I11", f"{told}, which too few have approved")

    def wanted(self, incident: _Incident | None = None) -> list[Request]:
        """Requests for the release of an incident, or of any."""
        digests = {incident.digest} if incident else {one.digest for one in self.standing.values()}
        requests = self.people.asked.values()
        return [one for one in requests if one.act.kind == "release" and one.act.subject in digests]

    def go_back(self, call: Call, row: RollbackChange) -> None:
        """Check that a champion is taken back, and take it back.

        Raises:
            Violated: nobody asked for it, or it isn't one that led to the present one.
        """
        told = f"{row.lineage} went back to promotion {row.to} by {call.method}"
        require(call.method in ("rollback", "revert"), "I10", told)
        line = self.people.line.get(row.lineage, [])
        require(row.to in (0, *(number for number, _ in line[:-1])), "I10", told)
        self.people.line[row.lineage] = [one for one in line if one[0] <= row.to]

    def may_thaw(self, call: Call, row: SweepChange) -> bool:
        """Whether a frozen sweep may become anything else."""
        return (row.after, call.method) == ("closed", "release")
