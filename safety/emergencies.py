"""What a ledger does in an emergency: a lineage is shut down, reverted and, by people, released."""

from __future__ import annotations

import sqlalchemy as sa

from safety import approvals, audit, endings, incidents, leases, promotions, schema, succession, sweeps
from safety.approval import Act, Champion
from safety.champion_ledger import ChampionLedger
from safety.emergency import Incident, Step
from safety.errors import LedgerError
from safety.lease import Lease
from safety.verdict import Allow

# rule of a lease that a shutdown has revoked
RULE = "shut_down"


class Emergencies(ChampionLedger):
    """Emergency shutdowns and rollbacks; every method is one transaction, and twice is once.

    Args:
        url: SQLAlchemy URL, `sqlite:///path` by default use.
        clock: the clocks of this host.
    """

    def shut_down(self, lineage: str, reason: str, by: str) -> Incident:
        """Freeze a lineage: nothing of it is admitted, begun, renewed, promoted or opened until its release.

        Args:
            lineage: its name, or that of a sweep of it.
            reason: for people.
            by: who shuts it down.

        Raises:
            LedgerError: there is no such lineage.
        """
        with self._transaction() as connection:
            name = _lineage(connection, lineage)
            return promotions.shut_down(connection, self._clock, name, reason, by)

    def incidents(self) -> list[Incident]:
        """Every shutdown, in order."""
        with self._transaction() as connection:
            return incidents.all_of(connection)

    def incident(self, number: int) -> Incident:
        """A shutdown by its number.

        Raises:
            LedgerError: there is none.
        """
        with self._transaction() as connection:
            return incidents.find(connection, number)

    def standing_incident(self, lineage: str) -> Incident | None:
        """The shutdown that keeps a lineage, or that of a sweep, from going on; None where none does."""
        with self._transaction() as connection:
            known = _known_lineage(connection, lineage)
            return incidents.standing(connection, known) if known else None

    def revoke_leases(self, number: int, by: str) -> Incident:
        """Renew no lease of the lineage any more, and give back those that never began.

        Raises:
            LedgerError: there is no such incident.
        """
        with self._transaction() as connection:
            incident = incidents.find(connection, number)
            if not incident.step("revoked"):
                held = _held(connection, incident.lineage)
                for lease in held:
                    endings.revoke(connection, self._clock, lease, RULE, incident.reason)
                incidents.take(connection, self._clock, incident, "revoked", by, f"{len(held)} leases")
            return incidents.find(connection, number)

    def leases_left(self, number: int) -> int:
        """How many leases of the lineage are not over; what nobody looks after is reaped first.

        Raises:
            LedgerError: there is no such incident.
        """
        with self._transaction() as connection:
            endings.reap(connection, self._clock)
            return len(_held(connection, incidents.find(connection, number).lineage))

    def revert(self, number: int, by: str) -> str:
        """Make the last known safe champion the lineage's present one; see `Incident.safe`.

        Where it is behind that one already it stays there. The step is taken when it is so on disk too.

        Returns:
            The artifact that the lineage is at; "" for what it began with, and where nobody told.

        Raises:
            LedgerError: there is no such incident, or its state isn't saved yet.
        """
        with self._transaction() as connection:
            incident = incidents.find(connection, number)
            if not incident.step("reverted"):
                incidents.require(incident, "reverted")
                to, reason = incidents.safe_of(connection, incident), f"incident {number}: {incident.reason}"
                succession.go_back(connection, self._clock, incident.lineage, to, reason, by, incident=number)
            champion = succession.current(connection, incident.lineage)
            return champion.artifact if champion else ""

    def take_step(self, number: int, step: Step, by: str, told: str = "") -> Incident:
        """Write down that the state was saved, the champion reverted, or the alert taken.

        Args:
            number: of the incident.
            step: saved, reverted or alerted.
            by: who did it.
            told: where, to which artifact, or by whom.

        Raises:
            LedgerError: there is no such incident, it is another step, or one before it was not taken.
        """
        if step not in ("saved", "reverted", "alerted"):
            raise LedgerError(f"incident {number}: {step}: expected saved, reverted or alerted")
        with self._transaction() as connection:
            incident = incidents.find(connection, number)
            if step == "reverted" and not incident.step(step):
                self._require_reverted(connection, incident)
            incidents.take(connection, self._clock, incident, step, by, told)
            return incidents.find(connection, number)

    def _require_reverted(self, connection: sa.Connection, incident: Incident) -> None:
        safe = incidents.safe_of(connection, incident)
        if any(row.id > safe for row in succession.standing(connection, incident.lineage)):
            raise LedgerError(
                f"incident {incident.number}: its lineage isn't at its safe champion; `revert` it"
            )

    def acknowledge(self, number: int, reason: str, by: str) -> bool:
        """Say that somebody knows of a shutdown, so that its alert rests; whether nobody had.

        Raises:
            LedgerError: there is no such incident.
        """
        with self._transaction() as connection:
            incident = incidents.find(connection, number)
            return incidents.take(connection, self._clock, incident, "acknowledged", by, reason)

    def release(self, number: int, reason: str, by: str) -> bool:
        """Let a lineage go on; whether it was kept from that. What was revoked stays over.

        Where its limits name approvers, or did as it was shut down, it is asked for until enough of them
        approve.

        Raises:
            ApprovalMissing: it is asked for now, or was, and not approved.
            LedgerError: there is no such incident, or it isn't acknowledged, saved and reverted yet.
        """
        with self._transaction() as connection:
            incident = incidents.find(connection, number)
            if incident.is_released:
                return False
            incidents.require(incident, "released")
            policy = sweeps.find(connection, incident.sweep).limits.digest
            act = Act(kind="release", subject=incident.digest, policy=policy, sweep=incident.sweep)
            if not approvals.in_force(connection, act).is_named:
                incidents.release(connection, self._clock, incident, reason, by)
                return True
            asked, verdict = self._allow(connection, act, by, reason, f"release of incident {number}")
            if isinstance(verdict, Allow):
                incidents.release(connection, self._clock, incident, reason, by, asked.request.digest)
                return True
        raise approvals.missing(asked, verdict)  # within, what was asked would be rolled back

    # --- champions

    def rollback(self, lineage: str, to_artifact: str, reason: str, by: str) -> bool:
        """Make an earlier champion of a lineage its present one, frozen or not; whether it wasn't yet.

        Generations go on rising, and the improvements that are taken back still count.

        Args:
            lineage: its name, or that of a sweep of it.
            to_artifact: digest of a champion that led to the present one; "" for what the lineage began with.
            reason: for people.
            by: who decides it.

        Raises:
            LedgerError: there is no such lineage, or no such champion in its line.
        """
        with self._transaction() as connection:
            name = _lineage(connection, lineage)
            to = succession.number_of(connection, name, to_artifact)
            return succession.go_back(connection, self._clock, name, to, reason, by)

    def current_champion(self, lineage: str) -> Champion | None:
        """The champion that a lineage, or that of a sweep, is at.

        Returns:
            None for what it began with, and for a champion that nobody told the ledger of.

        Raises:
            LedgerError: there is no such lineage.
        """
        with self._transaction() as connection:
            return succession.current(connection, _lineage(connection, lineage))

    def audit_page(self, after: int) -> list[audit.Row]:
        """The next rows of the audit behind a number, up to `audit.PAGE` of them."""
        with self._transaction() as connection:
            return audit.rows(connection, after=after, limit=audit.PAGE)


def _lineage(connection: sa.Connection, name: str) -> str:
    """A lineage by its name, or by that of one of its sweeps.

    Raises:
        LedgerError: there is none.
    """
    found = _known_lineage(connection, name)
    if found is None:
        raise LedgerError(f"lineage {name!r:.80}: not in the ledger; expected that of a sweep, or a sweep")
    return found


def _known_lineage(connection: sa.Connection, name: str) -> str | None:
    table = schema.sweeps
    if connection.scalar(sa.select(table.c.lineage).where(table.c.lineage == name).limit(1)) is not None:
        return name
    return connection.scalar(sa.select(table.c.lineage).where(table.c.name == name))


def _held(connection: sa.Connection, lineage: str) -> list[Lease]:
    names = sweeps.names_of_lineage(connection, lineage)
    return [lease for name in names for lease in leases.open_ones(connection, name)]
