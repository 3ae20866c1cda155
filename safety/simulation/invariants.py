"""What must hold after every event of a rehearsal, checked against what the database tells of each change.

I1 to I10 are the invariants of the ledger:

- I1 spent + held is within the cap, and an admission within what the limits name;
- I2 held is the sum of the open leases, spent of the closed ones;
- I3 a trial has one open lease, that it asked for;
- I4 what is over stays over, and a stale fence changes nothing;
- I5 a worker computes before its deadline under an open lease, whose hold nobody returns meanwhile;
- I6 every change of state has its row in the audit, and the audit only grows;
- I7 spent never falls;
- I8 what fails grants nothing, and fails as it should;
- I9 no cap is raised;
- I10 nothing is promoted that people have not approved: exactly it, enough of them, in time, once; a champion
  is taken back only to one that led to it;
- I11 a lineage that is shut down stays so until it is reverted, and acknowledged and released by people.

"kill": while the switch is thrown nothing is admitted, begun or renewed, and only `unkill` lifts it.
"ceiling": nothing over one is admitted, let go on or promoted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from safety import audit
from safety.errors import LedgerError, SafetyError
from safety.lease import Grant
from safety.ledger import Ledger
from safety.simulation.audited import require_audit
from safety.simulation.feed import (
    AuditRow,
    BudgetChange,
    Change,
    IncidentChange,
    LatchChange,
    LeaseChange,
    PromotionChange,
    Rewritten,
    RollbackChange,
    StepChange,
    SweepChange,
)
from safety.simulation.model import OPEN, Amounts, Model, Place
from safety.simulation.promotions import People
from safety.simulation.shutdowns import Shutdowns
from safety.simulation.storage import Failure, SharedMemory
from safety.simulation.timeline import Host
from safety.simulation.transitions import Transitions
from safety.simulation.violation import Call, Violated, require
from safety.verdict import Allow


class Invariants:
    """The checks, and the model that they check against.

    Args:
        storage: the ledger's database.
        host: the clocks of its host.
        may_compute: whether a live worker may still compute under a lease, by the truth of the simulation.
    """

    def __init__(self, storage: SharedMemory, host: Host, may_compute: Callable[[int], bool]) -> None:
        self.model = Model()
        self.people = People()
        self.shutdowns = Shutdowns(self.people)
        self._storage, self._host = storage, host
        self._transitions = Transitions(self.model, host, may_compute, self.people.trained)
        self._found: dict[Place, BudgetChange] = {}
        self._last_row = 0
        self._on: dict[type[Change], Callable[[Call, Any], None]] = {
            BudgetChange: self._budget,
            LeaseChange: self._transitions.follow,
            SweepChange: self._sweep,
            LatchChange: self._latch,
            PromotionChange: self._promotion,
            RollbackChange: self.shutdowns.go_back,
            IncidentChange: self.shutdowns.begin,
            StepChange: self._step,
            AuditRow: self._audit,
            Rewritten: self._rewritten,
        }

    def after(self, call: Call, answer: object) -> list[Change]:
        """Check what a call has changed and what it answered; the changes.

        Raises:
            Violated: an invariant does not hold.
        """
        changes = self._storage.changes()
        if isinstance(answer, SafetyError) and call.failing:
            _require_no_grant(call, changes)
        for change in changes:
            self._on[type(change)](call, change)
        require_audit(changes)
        for place in {(c.scope, c.resource): c for c in changes if isinstance(c, BudgetChange)}:
            self._require_sums(place)
        self._require_answer(call, answer)
        for lineage in self.shutdowns.standing:
            state = self.model.sweeps.get(lineage)
            require(state == "frozen", "I11", f"{lineage} was shut down, and is {state} after {call.method}")
        self.people.hear(call, answer)
        return changes

    def computes(self, lease: int, fence: int) -> None:
        """Check that a worker which computes now holds an open lease.

        Raises:
            Violated: it does not.
        """
        known = self.model.leases.get(lease)
        state, newest = (known.state, known.fence) if known else ("unknown", 0)
        held = state in ("active", "revoked") and newest == fence
        require(
            held, "I5", f"a worker computes under lease {lease}, fence {fence}: it is {state}, fence {newest}"
        )

    def everything(self) -> None:
        """Compare all leases, sweeps, budgets and the switch with the model.

        Raises:
            Violated: they differ.
        """
        for number, state, fence in self._storage.rows("SELECT id, state, fence FROM leases"):
            lease = self.model.leases.get(number)
            same = lease is not None and (lease.state, lease.fence) == (state, fence)
            require(
                same, "I6", f"lease {number} is {state}, fence {fence}, by a change that nothing tells of"
            )
        for scope, resource, held, spent in self._storage.rows(
            "SELECT scope, resource, held, spent FROM budgets"
        ):
            wanted = self.model.budgets[scope, resource]
            told = f"{scope} {resource}: held {held:,}, spent {spent:,}; expected {wanted}"
            require((wanted.held, wanted.spent) == (held, spent), "I2", told)
        held = self._held()
        for place, wanted in self.model.budgets.items():
            told = f"{place[0]} {place[1]}: held {wanted.held:,}, open leases {held[place]:,}"
            require(wanted.held == held[place], "I2", told)

    def nothing_is_held(self) -> None:
        """Check that every lease is over.

        Raises:
            Violated: one is open, though nobody has looked after it for long.
        """
        for lease in self.model.leases.values():
            require(lease.state not in OPEN, "I2", f"{lease.key} is {lease.state}, and nobody looks after it")

    def _held(self) -> Counter[Place]:
        held: Counter[Place] = Counter()
        for lease in self.model.leases.values():
            if lease.state in OPEN:
                for place in self.model.places(lease.sweep):
                    held[place] += lease.charges[place[1]]
        return held

    # --- rows that have changed

    def _budget(self, call: Call, row: BudgetChange) -> None:
        place = row.scope, row.resource
        told = f"{row.scope} {row.resource}: spent {row.spent:,}, held {row.held:,}, cap {row.cap:,}"
        require(row.held >= 0 and row.spent + row.held <= row.cap, "I1", told)
        require(row.spent >= row.spent_before, "I7", f"{told}, spent before {row.spent_before:,}")
        require(row.target <= row.target_before, "I9", f"{told}: loosened to {row.target:,} by {call.method}")
        self.model.budgets.setdefault(place, Amounts(target=row.target)).target = row.target
        self._found[place] = row

    def _require_sums(self, place: Place) -> None:
        row, wanted = self._found[place], self.model.budgets[place]
        found = f"{place[0]} {place[1]}: held {row.held:,}, spent {row.spent:,}"
        agree = (row.held, row.spent) == (wanted.held, wanted.spent)
        require(agree, "I2", f"{found}; its leases say {wanted.held:,} and {wanted.spent:,}")

    def _sweep(self, call: Call, row: SweepChange) -> None:
        thaws = row.before == "frozen" != row.after
        told = f"{row.name}: frozen, then {row.after} by {call.method}"
        require(not thaws or self.shutdowns.may_thaw(call, row), "I4", told)
        self.model.sweeps[row.name] = row.after
        if not row.before:
            self.model.limits[row.name] = call.arguments[1]

    def _latch(self, call: Call, row: LatchChange) -> None:
        wanted = "kill" if row.thrown else "unkill"
        told = "was thrown" if row.thrown else "was lifted"
        require(call.method == wanted, "kill", f"the switch {told} by {call.method}")
        self.model.killed = bool(row.thrown)

    def _promotion(self, call: Call, row: PromotionChange) -> None:
        self.people.follow(call, row, self.model.limits[row.sweep], self._host)

    def _step(self, call: Call, row: StepChange) -> None:
        self.shutdowns.follow(call, row, self.model.limits[self.shutdowns.known[row.incident].sweep])

    def _audit(self, _call: Call, row: AuditRow) -> None:
        self._last_row += 1
        require(row.seq == self._last_row, "I6", f"audit row {row.seq} follows {self._last_row - 1}")

    def _rewritten(self, call: Call, row: Rewritten) -> None:
        raise Violated(f"I6: a row of {row.table} was rewritten by {call.method}")

    # --- answers

    def _require_answer(self, call: Call, answer: object) -> None:
        told = f"{call.method} answered {answer!r:.80}"
        if call.failing is Failure.LOCKED:
            require(isinstance(answer, LedgerError), "I8", f"{told} on a locked database")
        require(not (call.must_deny and _is_granted(answer)), "ceiling", f"{told}: {call.must_deny}")
        if call.method in ("admit", "readmit") and isinstance(answer, Allow):
            lease = self.model.newest.get(call.arguments[0].key)
            require(lease is not None and lease.state in OPEN, "I3", f"{told} without a lease")
            self._require_open(call.arguments[0].sweep, told)
        elif call.method in ("activate", "renew") and _is_granted(answer):
            self._require_active(call, answer, told)
        elif call.method == "report" and isinstance(answer, Allow):
            lease = self.model.newest.get(call.arguments[0])
            require(lease is not None and lease.state == "active", "I8", f"{told} without a lease")
        elif call.method == "kill" and isinstance(answer, int):
            require(self.model.killed, "kill", f"{told}, and the switch is not thrown")

    def _require_active(self, call: Call, answer: object, told: str) -> None:
        """A worker that is told to go on has the lease that it shows, for as long as it is told."""
        number, fence = (answer.lease, answer.fence) if isinstance(answer, Grant) else call.arguments[:2]
        lease = self.model.leases.get(number)
        if lease is None:
            raise Violated(f"I5: {told} without a lease")
        found = f"{told}: lease {number} is {lease.state}, fence {lease.fence}"
        require((lease.state, lease.fence) == ("active", fence), "I4", found)
        self._require_open(lease.sweep, told)
        ttl_ms = answer.ttl_ms if isinstance(answer, Grant) else answer
        named = self.model.limits[lease.sweep].lease_seconds * 1000
        require(ttl_ms == named, "I5", f"{told}, the limits name {named} ms")

    def _require_open(self, sweep: str, told: str) -> None:
        require(not self.model.killed, "kill", f"{told} while the switch was thrown")
        require(self.model.is_open(sweep), "I4", f"{told} while {sweep} was {self.model.sweeps.get(sweep)}")


def require_chain(ledger: Ledger) -> str:
    """Check the whole audit; the hash of its last row.

    Raises:
        Violated: a row does not follow from those before it.
    """
    rows = ledger.audit()
    broken = audit.verify(rows)
    require(broken is None, "I6", f"audit row {broken} doesn't follow from those before it")
    return rows[-1][2] if rows else audit.GENESIS


def _is_granted(answer: object) -> bool:
    return isinstance(answer, Allow | Grant | int)


def _require_no_grant(call: Call, changes: Sequence[Change]) -> None:
    granted = [
        change
        for change in changes
        if isinstance(change, LeaseChange)
        # a rule may be written on a lease that stays as it is
        and (change.before != change.after or call.method == "renew")
        and change.after in ("reserved", "active")
    ]
    require(not granted, "I8", f"{call.method} failed and granted a lease all the same")
