"""What a governor, and the client of its actor, answer in an emergency: the ledger's own methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from safety import audit
from safety.approval import Champion
from safety.emergency import Incident, Step
from safety.improvement import Promotion
from safety.ledger import Ledger
from safety.verdict import Deny


class EmergencyCalls:
    """The part of a governor that shuts lineages down and takes champions back; see `Emergencies`.

    What people decide of a shutdown, they tell the ledger.

    Args:
        ledger: that does it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.shut_down = ledger.shut_down
        self.incident = ledger.incident
        self.standing_incident = ledger.standing_incident
        self.revoke_leases = ledger.revoke_leases
        self.leases_left = ledger.leases_left
        self.take_step = ledger.take_step
        self.revert = ledger.revert
        self.note_once = ledger.note_once
        self.rollback = ledger.rollback
        self.current_champion = ledger.current_champion
        self.promotions = ledger.promotions
        self.audit_page = ledger.audit_page


class EmergencyClient(ABC):
    """The same as drivers reach it."""

    @abstractmethod
    def _ask(self, method: str, *arguments: object) -> Any:
        """Have the governor call one of its methods."""

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

    def promotions(self, lineage: str) -> list[Promotion]:
        """The promotions of a lineage, in order, and which of them were rolled back."""
        promotions: list[Promotion] = self._ask("promotions", lineage)
        return promotions

    def audit_page(self, after: int) -> list[audit.Row]:
        """The next rows of the audit behind a number."""
        rows: list[audit.Row] = self._ask("audit_page", after)
        return rows
