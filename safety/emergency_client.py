"""What a driver asks in an emergency, of the governor itself or of its client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from safety import audit
from safety.approval import Champion
from safety.emergency import Incident, Step
from safety.verdict import Deny


class EmergencyClient(ABC):
    """Asks what `Emergencies` answers; what people decide of a shutdown, they tell the ledger."""

    @abstractmethod
    def _ask(self, method: str, *arguments: object) -> Any:
        """Ask whoever answers."""

    def shut_down(self, lineage: str, reason: str, by: str) -> Incident:
        """Freeze a lineage until it is released."""
        incident: Incident = self._ask("shut_down", lineage, reason, by)
        return incident

    def incident(self, number: int) -> Incident:
        """A shutdown by its number."""
        incident: Incident = self._ask("incident", number)
        return incident

    def standing_incident(self, lineage: str) -> Incident | None:
        """The shutdown that keeps a lineage from going on."""
        incident: Incident | None = self._ask("standing_incident", lineage)
        return incident

    def revoke_leases(self, number: int, by: str) -> Incident:
        """Renew no lease of the lineage any more."""
        incident: Incident = self._ask("revoke_leases", number, by)
        return incident

    def leases_left(self, number: int) -> int:
        """How many leases of the lineage are not over."""
        left: int = self._ask("leases_left", number)
        return left

    def take_step(self, number: int, step: Step, by: str, told: str = "") -> Incident:
        """Write down that the state was saved, the champion reverted, or the alert taken."""
        incident: Incident = self._ask("take_step", number, step, by, told)
        return incident

    def revert(self, number: int, by: str) -> str:
        """Make the last known safe champion the lineage's present one; the artifact that it is at."""
        artifact: str = self._ask("revert", number, by)
        return artifact

    def note_once(self, key: str, denial: Deny) -> bool:
        """Record an incident of no sweep, once."""
        is_new: bool = self._ask("note_once", key, denial)
        return is_new

    def rollback(self, lineage: str, to_artifact: str, reason: str, by: str) -> bool:
        """Make an earlier champion of a lineage its present one."""
        changed: bool = self._ask("rollback", lineage, to_artifact, reason, by)
        return changed

    def current_champion(self, lineage: str) -> Champion | None:
        """The champion that a lineage is at."""
        champion: Champion | None = self._ask("current_champion", lineage)
        return champion

    def audit_page(self, after: int) -> list[audit.Row]:
        """The next rows of the audit behind a number."""
        rows: list[audit.Row] = self._ask("audit_page", after)
        return rows
