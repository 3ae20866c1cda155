"""Which changes of a lease are right: each is checked as the database tells it, then made in the model."""

from __future__ import annotations

from collections.abc import Callable

from safety.claim import Usage
from safety.lease import Request
from safety.limits import Limits
from safety.simulation.feed import LeaseChange
from safety.simulation.model import GFLOP, OPEN, Model, Modelled, charges_of, cut_short, forfeited, settled
from safety.simulation.timeline import Host
from safety.simulation.violation import Call, Violated, require

_STEPS = {
    "reserved": ("reserved", "active", "void"),
    "active": ("active", "revoked", "settled", "forfeited"),
    "revoked": ("revoked", "settled", "forfeited"),
}
# rules that say nothing of the trial itself
_PASSING = ("", "failed", "lease", "killed")


class Transitions:
    """Follows every lease of a ledger.

    Args:
        model: what the ledger must hold.
        host: the clocks of the ledger's host.
        may_compute: whether a live worker may still compute under a lease, by the truth of the simulation.
        trained: GFLOP of the training of the champions that led to a sweep's present one.
    """

    def __init__(
        self,
        model: Model,
        host: Host,
        may_compute: Callable[[int], bool],
        trained: Callable[[str], int],
    ) -> None:
        self._model = model
        self._host = host
        self._may_compute = may_compute
        self._trained = trained

    def follow(self, call: Call, row: LeaseChange) -> None:
        """Check one change of a lease, and make it.

        Raises:
            Violated: it may not be.
        """
        lease = self._model.leases.get(row.id)
        if lease is None:
            self._reserved(call, row)
            return
        step = f"{row.key}: {row.before} to {row.after} in {call.method}"
        require(lease.state == row.before and row.after in _STEPS.get(row.before, ()), "I4", step)
        raised = row.before != row.after in ("active", "forfeited")
        require(row.fence == lease.fence + raised, "I4", f"{step}: fence {lease.fence} became {row.fence}")
        lease.fence, lease.rule, lease.state = row.fence, row.rule, row.after
        if call.method == "report":
            lease.hear(call.arguments[1].usage, call.arguments[1].number)
        if row.before == row.after == "active" or row.deadline_ms != lease.deadline_ms:
            self._extended(call, lease, row)
        if row.before != row.after and row.after not in OPEN:
            self._ended(call, lease)
        lease.deadline_ms, lease.boot = row.deadline_ms, row.boot

    def _reserved(self, call: Call, row: LeaseChange) -> None:
        request = call.arguments[0] if call.arguments else None
        asked = isinstance(request, Request) and (request.key, row.after) == (row.trial, "reserved")
        if not asked or not isinstance(request, Request):
            raise Violated(f"I3: {row.key}: a lease that nobody asked for, in {call.method}")
        self._may_be_admitted(request)
        earlier = self._model.newest.get(row.trial)
        credit = earlier.credit if earlier else {}
        charges = charges_of(request.claim, counted=row.trial in self._model.counted, credit=credit)
        lease = Modelled(
            id=row.id,
            trial=row.trial,
            key=row.key,
            sweep=request.sweep,
            claim=request.claim,
            charges=charges,
            credit=credit,
        )
        self._model.reserve(lease)
        for place in self._model.places(request.sweep):
            budget = self._model.budgets[place]
            fits = not charges[place[1]] or budget.spent + budget.held <= budget.target
            told = f"spent {budget.spent:,}, held {budget.held:,}, target {budget.target:,}"
            require(fits, "I1", f"{row.key} was admitted to {place[0]} {place[1]}: {told}")

    def _may_be_admitted(self, request: Request) -> None:
        earlier = self._model.newest.get(request.key)
        self._goes_on(request.sweep, f"{request.key} was admitted")
        over = _over(self._model.limits[request.sweep], request, self._trained(request.sweep))
        require(not over, "ceiling", f"{request.key} was admitted with {over} over its ceiling")
        if earlier:
            require(
                earlier.state not in OPEN, "I3", f"{request.key} has an open lease, and was given another"
            )
            told = f"{request.key} was refused by {earlier.rule}, and was admitted again"
            require(earlier.rule in _PASSING, "I4", told)

    def _goes_on(self, sweep: str, told: str) -> None:
        require(not self._model.killed, "kill", f"{told} while the switch was thrown")
        require(
            self._model.is_open(sweep), "I4", f"{told} while its sweep was {self._model.sweeps.get(sweep)}"
        )

    def _extended(self, call: Call, lease: Modelled, row: LeaseChange) -> None:
        """A deadline was set: by the first renewal, a later one, or after the host was started again."""
        now = self._host.monotonic_ms()
        if self._is_renewal(call, lease):
            self._goes_on(lease.sweep, f"{lease.key}: {call.method} succeeded")
            in_time = row.before == "reserved" or lease.boot != row.boot or now <= lease.deadline_ms
            require(in_time, "I5", f"{lease.key} was renewed {now - lease.deadline_ms} ms after its deadline")
        else:
            same = row.before == row.after and row.deadline_ms == lease.deadline_ms
            reboot = row.before == row.after and lease.boot != self._host.boot
            require(same or reboot, "I5", f"{lease.key} got another deadline by {call.method}")
        if row.before == "reserved":
            lease.began_ms, lease.holder = now, str(call.arguments[2])
        elif row.boot != lease.boot:
            lease.began_ms = now - lease.claim.wall_ms

    def _is_renewal(self, call: Call, lease: Modelled) -> bool:
        if call.method == "renew":
            return call.arguments == (lease.id, lease.fence) and lease.state == "active"
        asked = call.method == "activate" and call.arguments[0] == lease.trial
        return asked and lease.holder in ("", call.arguments[2])

    def _ended(self, call: Call, lease: Modelled) -> None:
        told = f"{lease.key}: {lease.state} in {call.method} while its worker may compute"
        require(not self._may_compute(lease.id), "I5", told)
        used = self._used(call, lease)
        is_silent = lease.state == "forfeited"
        computed = cut_short(lease, Usage(), lease.deadline_ms - lease.began_ms) if is_silent else used
        self._model.end(lease, used, computed)

    def _used(self, call: Call, lease: Modelled) -> dict[str, int]:
        if lease.state == "void":
            return {}
        if lease.state == "forfeited":
            self._is_due(lease)
            return forfeited(lease)
        if call.method == "settle" and call.arguments[0] == lease.id:
            return settled(lease, call.arguments[2])
        require(call.method == "close_sweep", "I4", f"{lease.key}: settled by {call.method}")
        usage: Usage = call.arguments[1].get(lease.trial, Usage())
        since = self._host.monotonic_ms() - lease.began_ms
        return cut_short(lease, usage, since if lease.boot == self._host.boot else lease.claim.wall_ms)

    def _is_due(self, lease: Modelled) -> None:
        late = self._host.monotonic_ms() - lease.deadline_ms
        grace = self._model.limits[lease.sweep].grace_seconds * 1000
        due = lease.boot == self._host.boot and late > grace
        require(due, "I5", f"{lease.key}: forfeited {late} ms after its deadline, the grace is {grace} ms")


def _over(limits: Limits, request: Request, trained: int) -> str:
    claim, bounds = request.claim, limits.bounds
    most = bounds.max_train_flops
    over = {
        "parameters": claim.params > bounds.max_params,
        "FLOPs": claim.forward_flops > bounds.max_flops,
        "memory": claim.memory_bytes > bounds.max_memory,
        "training": most is not None and claim.train_flops + trained * GFLOP > most,
    }
    return ", ".join(name for name, is_over in over.items() if is_over)
