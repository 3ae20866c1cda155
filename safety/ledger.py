"""The durable truth: budgets, leases and audit, in one SQL database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from safety import audit, budgets, schema
from safety.budgets import Budget
from safety.claim import Claim, Usage
from safety.clock import Clock, system_clock
from safety.errors import KeyReused, LeaseLost, LedgerError, LooserLimits
from safety.lease import OPEN_STATES, Grant, Lease, Request
from safety.limits import Limits
from safety.verdict import Allow, Deny, Hold, Verdict

# a driver that is silent for longer has left its reserved leases behind
SWEEP_SILENCE_MS = 60_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A sweep as the ledger knows it: which limits bind it, whether it is open, frozen or closed."""

    name: str
    limits: Limits
    state: str
    reason: str


class Ledger:
    """The lease protocol over a database; every method is one transaction.

    Args:
        url: SQLAlchemy URL, `sqlite:///path` by default use.
        clock: the clocks of this host.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = url
        self._engine = schema.open_database(url)
        self._clock = clock or system_clock()
        self._policies: dict[str, Limits] = {}

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise LedgerError(f"ledger {self.url}: {getattr(error, 'orig', None) or error}") from error

    # --- sweeps and their limits

    def open_sweep(self, name: str, limits: Limits) -> None:
        """Bind a sweep to its limits, and the cluster's budgets to the tightest asked for so far.

        Raises:
            LooserLimits: a cap above the one in force, or other limits for a sweep that exists.
        """
        now = self._clock.monotonic_ms()
        with self._transaction() as connection:
            if not connection.execute(_policy_of(limits.digest)).first():
                connection.execute(
                    schema.policies.insert().values(digest=limits.digest, limits=limits.canonical)
                )
            known = connection.execute(_sweep_of(name)).first()
            if known and known.policy != limits.digest:
                raise LooserLimits(f"sweep {name}: bound to other limits; give the sweep another name")
            if known and known.state == "frozen":
                raise LedgerError(f"sweep {name}: frozen: {known.reason}")
            if not known:
                connection.execute(
                    schema.sweeps.insert().values(
                        name=name, policy=limits.digest, state="open", seen_ms=now, boot=self._clock.boot
                    )
                )
            self._set_sweep(connection, name, state="open", seen_ms=now, boot=self._clock.boot)
            budgets.adopt(connection, name, limits)
            self._note(connection, "open_sweep", sweep=name, detail={"policy": limits.digest})

    def sweep(self, name: str) -> Sweep:
        """A sweep's limits and state.

        Raises:
            LedgerError: there is no such sweep.
        """
        with self._transaction() as connection:
            return self._sweep(connection, name)

    def _sweep(self, connection: sa.Connection, name: str) -> Sweep:
        row = connection.execute(_sweep_of(name)).first()
        if row is None:
            raise LedgerError(f"sweep {name}: not in the ledger; open it first")
        if row.policy not in self._policies:
            stored = connection.execute(_policy_of(row.policy)).scalar_one()
            self._policies[row.policy] = Limits.model_validate_json(stored)
        return Sweep(name=name, limits=self._policies[row.policy], state=row.state, reason=row.reason)

    def pulse(self, name: str) -> str:
        """Say that a sweep's driver is alive; answers the sweep's state."""
        with self._transaction() as connection:
            self._set_sweep(connection, name, seen_ms=self._clock.monotonic_ms(), boot=self._clock.boot)
            return self._sweep(connection, name).state

    def freeze(self, name: str, reason: str) -> None:
        """Admit and renew nothing of a sweep any more. It can't be undone here; twice is once."""
        with self._transaction() as connection:
            self._freeze(connection, name, reason)

    def _freeze(self, connection: sa.Connection, name: str, reason: str) -> None:
        if self._sweep(connection, name).state != "frozen":
            self._set_sweep(connection, name, state="frozen", reason=reason)
            self._note(connection, "freeze", sweep=name, detail={"reason": reason})

    def close_sweep(self, name: str, usage: Mapping[str, Usage]) -> None:
        """End a sweep whose workers are dead: void what never began, settle the rest.

        A trial that died between two reports is charged up to its next report, and its time until now.

        Args:
            name: the sweep.
            usage: last known usage by lease key.
        """
        now = self._clock.monotonic_ms()
        with self._transaction() as connection:
            for lease in self._leases(connection, schema.leases.c.sweep == name, _open()):
                if lease.state == "reserved":
                    self._end(connection, lease, "void", {})
                    continue
                cut = _cut_short(lease, usage.get(lease.key, Usage()), now)
                self._end(connection, lease, "settled", cut.charges(lease.claim))
            if self._sweep(connection, name).state == "open":
                self._set_sweep(connection, name, state="closed")
                self._note(connection, "close_sweep", sweep=name)

    def _set_sweep(self, connection: sa.Connection, name: str, **values: object) -> None:
        connection.execute(schema.sweeps.update().where(schema.sweeps.c.name == name).values(**values))

    # --- leases

    def reserve(self, request: Request) -> Verdict:
        """Hold a claim in every budget that it touches, or say which one has no room.

        The same request again is answered by the lease that it already has.

        Raises:
            KeyReused: the key was used for another request.
        """
        with self._transaction() as connection:
            known = self._lease(connection, request.key)
            if known:
                return _again(known, request)
            sweep = self._sweep(connection, request.sweep)
            if sweep.state != "open":
                return Deny(sweep.state, f"sweep {sweep.name} is {sweep.state}: {sweep.reason}")
            charges = request.claim.charges()
            verdict = budgets.room(connection, request.sweep, charges)
            if isinstance(verdict, Allow):
                self._insert(connection, request, charges)
            return verdict

    def _insert(self, connection: sa.Connection, request: Request, charges: Mapping[str, int]) -> None:
        claim = json.dumps(request.claim.as_dict())
        inserted = connection.execute(
            schema.leases.insert().values(
                key=request.key, digest=request.digest, sweep=request.sweep, claim=claim, state="reserved"
            )
        )
        lease = int((inserted.inserted_primary_key or [0])[0])
        budgets.hold(connection, lease, request.sweep, charges)
        detail = {"digest": request.digest, "claim": request.claim.as_dict()}
        self._note(connection, "reserve", sweep=request.sweep, key=request.key, detail=detail)

    def activate(self, key: str, digest: str, holder: str) -> Grant:
        """Begin a lease: the first renewal. Nothing computes before it.

        Raises:
            LeaseLost: no lease for this key and digest, or it is over, or somebody else's.
        """
        now = self._clock.monotonic_ms()
        with self._transaction() as connection:
            lease = self._lease(connection, key)
            if lease is None or lease.digest != digest:
                raise LeaseLost(f"{key}: nothing was reserved for this candidate")
            sweep = self._sweep(connection, lease.sweep)
            ttl_ms = sweep.limits.lease_seconds * 1000
            if sweep.state != "open":
                raise LeaseLost(f"{key}: sweep {sweep.name} is {sweep.state}")
            if lease.state == "active" and lease.holder == holder:
                return Grant(lease=lease.id, fence=lease.fence, ttl_ms=ttl_ms, claim=lease.claim)
            if lease.state != "reserved":
                raise LeaseLost(f"{key}: the lease is {lease.state} already")
            fence = lease.fence + 1
            self._update(
                connection,
                lease,
                state="active",
                fence=fence,
                holder=holder,
                began_ms=now,
                deadline_ms=now + ttl_ms,
                boot=self._clock.boot,
            )
            self._note(connection, "activate", sweep=lease.sweep, key=key, detail={"fence": fence})
            return Grant(lease=lease.id, fence=fence, ttl_ms=ttl_ms, claim=lease.claim)

    def renew(self, lease_id: int, fence: int) -> int:
        """Go on computing: the milliseconds until the new deadline.

        Raises:
            LeaseLost: fenced, revoked, ended, expired, or the sweep is frozen.
        """
        now = self._clock.monotonic_ms()
        with self._transaction() as connection:
            lease = self._held(connection, lease_id, fence)
            sweep = self._sweep(connection, lease.sweep)
            if lease.state != "active":
                raise LeaseLost(f"{lease.key}: the lease is {lease.state}: {lease.reason}")
            if sweep.state != "open":
                raise LeaseLost(f"{lease.key}: sweep {sweep.name} is {sweep.state}: {sweep.reason}")
            if lease.boot == self._clock.boot and now > lease.deadline_ms:
                raise LeaseLost(f"{lease.key}: the lease expired before it was renewed")
            ttl_ms = sweep.limits.lease_seconds * 1000
            self._update(connection, lease, deadline_ms=now + ttl_ms, boot=self._clock.boot)
            return ttl_ms

    def settle(self, lease_id: int, fence: int, usage: Usage) -> None:
        """End a lease: what was used is spent, the rest of the hold returns.

        Usage over the hold is an overrun: an incident that freezes the sweep. Settling twice is once.

        Raises:
            LeaseLost: the fence is stale, or the hold was forfeited.
        """
        with self._transaction() as connection:
            lease = self._held(connection, lease_id, fence)
            if lease.state == "settled":
                return
            if lease.state not in ("active", "revoked"):
                raise LeaseLost(f"{lease.key}: the lease is {lease.state}")
            overrun = self._end(connection, lease, "settled", usage.charges(lease.claim))
            if overrun:
                text = ", ".join(f"{amount:,} {resource}" for resource, amount in overrun.items())
                self._note(
                    connection, "incident", sweep=lease.sweep, key=lease.key, detail={"overrun": overrun}
                )
                self._freeze(connection, lease.sweep, f"{lease.key} used {text} more than it held")

    def void(self, key: str, reason: str) -> None:
        """Give back a lease that never began; one that began is left as it is."""
        with self._transaction() as connection:
            lease = self._lease(connection, key)
            if lease and lease.state == "reserved":
                self._update(connection, lease, reason=reason)
                self._end(connection, lease, "void", {})

    def revoke(self, key: str, rule: str, reason: str) -> None:
        """Renew a lease no more; its hold stays until it is settled or reaped."""
        with self._transaction() as connection:
            lease = self._lease(connection, key)
            if lease and lease.state == "reserved":
                self._update(connection, lease, rule=rule, reason=reason)
                self._end(connection, lease, "void", {})
            elif lease and lease.state == "active":
                self._update(connection, lease, state="revoked", rule=rule, reason=reason)
                self._note(
                    connection, "revoke", sweep=lease.sweep, key=key, rule=rule, detail={"reason": reason}
                )

    def refuse(self, sweep: str, key: str, denial: Deny | Hold, *, kind: str = "deny") -> None:
        """Record a refusal; where there is a lease, the first one is the verdict on it."""
        with self._transaction() as connection:
            lease = self._lease(connection, key)
            if lease and not lease.rule:
                self._update(connection, lease, rule=denial.rule, reason=denial.reason)
            detail = {"reason": denial.reason}
            self._note(connection, kind, sweep=sweep, key=key, rule=denial.rule, detail=detail)

    def reap(self) -> int:
        """End leases that nobody looks after; the number ended.

        Never activated and the driver silent: void. Activated and silent past deadline and grace: the
        whole hold is spent, since the worker may have computed all of it.
        """
        now, boot = self._clock.monotonic_ms(), self._clock.boot
        ended = 0
        with self._transaction() as connection:
            drivers = {row.name: row for row in connection.execute(sa.select(schema.sweeps))}
            for lease in self._leases(connection, _open()):
                driver = drivers[lease.sweep]
                if lease.state == "reserved":
                    if driver.boot != boot or now > driver.seen_ms + SWEEP_SILENCE_MS:
                        self._end(connection, lease, "void", {})
                        ended += 1
                    continue
                limits = self._sweep(connection, lease.sweep).limits
                if lease.boot != boot:
                    # the host was started again: its clock says nothing of this lease, so it gets a full term
                    self._update(connection, lease, boot=boot, deadline_ms=now + limits.lease_seconds * 1000)
                elif now > lease.deadline_ms + limits.grace_seconds * 1000:
                    self._end(connection, lease, "forfeited", budgets.whole(lease.claim))
                    ended += 1
        return ended

    def lease(self, key: str) -> Lease | None:
        """The lease of a key."""
        with self._transaction() as connection:
            return self._lease(connection, key)

    def open_leases(self, sweep: str) -> list[Lease]:
        """Leases of a sweep that hold budget."""
        with self._transaction() as connection:
            return self._leases(connection, schema.leases.c.sweep == sweep, _open())

    def budgets(self, sweep: str) -> list[Budget]:
        """The budgets that a sweep draws on: the cluster's and its own."""
        with self._transaction() as connection:
            return budgets.of_sweep(connection, sweep)

    def audit(self) -> list[tuple[int, audit.Entry, str]]:
        """All audit rows in order, as `audit.verify` takes them."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(schema.audit).order_by(schema.audit.c.seq)).mappings()
            return [_entry(dict(row)) for row in rows]

    # --- rows

    def _lease(self, connection: sa.Connection, key: str) -> Lease | None:
        return next(iter(self._leases(connection, schema.leases.c.key == key)), None)

    def _leases(self, connection: sa.Connection, *where: Any) -> list[Lease]:
        rows = connection.execute(sa.select(schema.leases).where(*where)).mappings()
        return [Lease(**{**row, "claim": Claim(**json.loads(row["claim"]))}) for row in rows]

    def _held(self, connection: sa.Connection, lease_id: int, fence: int) -> Lease:
        found = self._leases(connection, schema.leases.c.id == lease_id)
        if not found or found[0].fence != fence:
            raise LeaseLost(f"lease {lease_id}: fence {fence} is stale")
        return found[0]

    def _update(self, connection: sa.Connection, lease: Lease, **values: object) -> None:
        connection.execute(schema.leases.update().where(schema.leases.c.id == lease.id).values(**values))

    def _end(
        self, connection: sa.Connection, lease: Lease, state: str, used: Mapping[str, int]
    ) -> dict[str, int]:
        overrun = budgets.release(connection, lease.id, used)
        fence = lease.fence + (state == "forfeited")
        self._update(connection, lease, state=state, fence=fence)
        kind = {"settled": "settle", "forfeited": "forfeit"}.get(state, state)
        self._note(connection, kind, sweep=lease.sweep, key=lease.key, detail={"used": dict(used)})
        return overrun

    def _note(
        self,
        connection: sa.Connection,
        kind: str,
        *,
        sweep: str = "",
        key: str = "",
        rule: str = "",
        detail: Mapping[str, object] | None = None,
    ) -> None:
        entry = audit.Entry(
            at_ms=self._clock.wall_ms(),
            kind=kind,
            sweep=sweep,
            key=key,
            rule=rule,
            detail=audit.canonical(detail or {}),
        )
        audit.append(connection, entry)


def _open() -> Any:
    return schema.leases.c.state.in_(OPEN_STATES)


def _policy_of(digest: str) -> Any:
    return sa.select(schema.policies.c.limits).where(schema.policies.c.digest == digest)


def _sweep_of(name: str) -> Any:
    return sa.select(schema.sweeps).where(schema.sweeps.c.name == name)


def _again(known: Lease, request: Request) -> Verdict:
    same = (known.digest, known.sweep, known.claim) == (request.digest, request.sweep, request.claim)
    if not same:
        raise KeyReused(f"{request.key}: this key was used for another request")
    if known.state in OPEN_STATES:
        return Allow()
    return Deny("ended", f"{request.key}: its lease is {known.state} already")


def _cut_short(lease: Lease, usage: Usage, now_ms: int) -> Usage:
    claim = lease.claim
    elapsed = min(max(0, now_ms - lease.began_ms), claim.wall_ms)
    return Usage(
        train_flops=min(usage.train_flops, claim.train_flops),
        wall_ms=elapsed,
        gpu_ms=min(claim.gpu_ms, -(-claim.gpu_ms * elapsed // max(1, claim.wall_ms))),
        reports=min(usage.reports + 1, claim.reports),
    )


def _entry(row: dict[str, Any]) -> tuple[int, audit.Entry, str]:
    seq, row_hash = row.pop("seq"), row.pop("hash")
    return seq, audit.Entry(**row), row_hash
