"""Approvals in the ledger: requests and decisions, each used up at most once, in the caller's transaction."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import sqlalchemy as sa

from safety import audit, incidents, latch, schema, sweeps
from safety.approval import (
    REJECTED,
    Act,
    Decision,
    Request,
    another,
    closed,
    judged,
    lifting,
    refusal,
    rejection,
)
from safety.clock import Clock
from safety.errors import ApprovalMissing, LedgerError
from safety.improvement import MS_PER_HOUR
from safety.latch import readable
from safety.limits import Approval
from safety.verdict import Allow, Deny, Hold, Verdict

_requests, _decisions = schema.approval_requests, schema.approval_decisions
_ACT = [field.name for field in fields(Act)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request as the ledger has it.

    Attributes:
        decisions: of it, in the order of their names.
        used_for: what used its approval up; "" for nothing yet.
        closed: why it can be approved no more, whoever the approvers become; None where it can.
    """

    request: Request
    decisions: tuple[Decision, ...]
    used_for: str
    closed: Deny | None = None


def all_of(connection: sa.Connection) -> list[Asked]:
    """Every request, in the order in which they came."""
    return [
        _asked(connection, row) for row in connection.execute(sa.select(_requests).order_by(_requests.c.id))
    ]


def find(connection: sa.Connection, name: str) -> Asked:
    """A request by its digest, or by the beginning of it.

    Raises:
        LedgerError: there is none, or there are several.
    """
    alike = _requests.c.digest.startswith(name, autoescape=True)
    rows = connection.execute(sa.select(_requests).where(alike).limit(2)).all()
    if len(rows) != 1 or not name:
        known = "several begin so" if len(rows) > 1 else "not in the ledger"
        raise LedgerError(f"request {name!r:.80}: {known}; `rsi-ray approvals list` shows them")
    return _asked(connection, rows[0])


def lifts(connection: sa.Connection, name: str) -> str:
    """The rule whose hold a request with this digest is to lift; "" for none."""
    return connection.scalar(sa.select(_requests.c.lifts).where(_requests.c.digest == name)) or ""


def _asked(connection: sa.Connection, row: sa.Row[tuple[object, ...]]) -> Asked:
    act = Act(**{name: row._mapping[name] for name in _ACT})
    named = {name: row._mapping[name] for name in ("about", "by", "at_ms", "expires_ms")}
    query = sa.select(_decisions).where(_decisions.c.request == row.digest).order_by(_decisions.c.by)
    made = tuple(Decision(**one) for one in connection.execute(query).mappings())
    over = Deny(row.rule, row.reason) if row.rule else None
    return Asked(request=Request(act=act, **named), decisions=made, used_for=row.used_for, closed=over)


def _close(connection: sa.Connection, request: Request, why: Deny) -> None:
    mine = _requests.update().where(_requests.c.digest == request.digest, _requests.c.rule == "")
    connection.execute(mine.values(rule=why.rule, reason=why.reason))


def _close_if_over(connection: sa.Connection, request: Request, now_ms: int) -> None:
    """Close a request whose hours are over for good, so that a clock that is set back doesn't open it."""
    why = closed(request, now_ms)
    if why and now_ms >= request.expires_ms:
        _close(connection, request, why)


def in_force(connection: sa.Connection, act: Act) -> Approval:
    """Who may approve an act; the end of a kill or a shutdown is no easier to approve than as it began."""
    now = sweeps.approval_in_force(connection, act.sweep)
    then = None
    if act.kind == "unkill":
        then = latch.guards(connection)
    elif act.kind == "release":
        then = incidents.guards(connection, act.subject)
    return lifting(then, now) if then else now


def missing(asked: Asked, verdict: Verdict) -> ApprovalMissing:
    """What is told of an act that waits for people, or was refused by them."""
    name, reason = asked.request.name, getattr(verdict, "reason", "")
    return ApprovalMissing(
        f"{asked.request.act.kind}: {reason}; `rsi-ray approvals show {name}` says what it is, and "
        f"`rsi-ray approvals approve {name} --key FILE --reason WHY` approves; then try again"
    )


def ask(connection: sa.Connection, clock: Clock, act: Act, approval: Approval, by: str, about: str) -> Asked:
    """Ask people to allow an act; one that waits for them already is not asked for again."""
    now_ms, same = clock.wall_ms(), [_requests.c[name] == getattr(act, name) for name in _ACT]
    query = sa.select(_requests).where(*same, _requests.c.used_for == "").order_by(_requests.c.id.desc())
    row = connection.execute(query.limit(1)).first()
    known = _asked(connection, row) if row else None
    if known and not isinstance(standing(known, approval, now_ms), Deny):
        return known
    if known:
        _close_if_over(connection, known.request, now_ms)
    expires_ms = now_ms + approval.hours * MS_PER_HOUR
    request = Request(act=act, about=readable(about), by=readable(by), at_ms=now_ms, expires_ms=expires_ms)
    if known and known.request == request:
        return known
    told = {"about": request.about, "by": request.by, "at_ms": now_ms, "expires_ms": expires_ms}
    connection.execute(_requests.insert().values(digest=request.digest, **asdict(act), **told))
    audit.note(connection, clock, "ask", sweep=act.sweep, key=request.digest, detail={**asdict(act), **told})
    return Asked(request=request, decisions=(), used_for="")


def rejected(connection: sa.Connection, act: Act) -> Asked | None:
    """The newest request for this very act, if people have rejected it."""
    same = [_requests.c[name] == getattr(act, name) for name in _ACT]
    query = sa.select(_requests).where(*same).order_by(_requests.c.id.desc()).limit(1)
    row = connection.execute(query).first()
    return _asked(connection, row) if row and row.rule == REJECTED else None


def decide(connection: sa.Connection, clock: Clock, decision: Decision) -> Deny | None:
    """Write a decision down; why it doesn't count, which is written down as well, or None.

    Raises:
        LedgerError: there is no such request.
    """
    asked = find(connection, decision.request)
    request = asked.request
    approval, now_ms = in_force(connection, request.act), clock.wall_ms()
    denial = _settled(asked, decision, approval, now_ms)
    _close_if_over(connection, request, now_ms)
    note = {"sweep": request.act.sweep, "key": request.digest}
    told = {name: getattr(decision, name) for name in ("by", "reason", "public", "signature")}
    if denial:
        detail = {**told, "answer": decision.answer, "reason": denial.reason}
        audit.note(connection, clock, "deny", **note, rule=denial.rule, detail=detail)
        return denial
    known = _decisions.c.request == decision.request, _decisions.c.by == decision.by
    connection.execute(_decisions.delete().where(*known))  # an approval taken back, or a forgery
    connection.execute(_decisions.insert().values(**asdict(decision)))
    if decision.answer == "reject":
        _close(connection, request, rejection(request, decision))
    audit.note(connection, clock, decision.answer, **note, detail=told)
    return None


def _settled(asked: Asked, decision: Decision, approval: Approval, now_ms: int) -> Deny | None:
    """Why a decision comes too late, or doesn't count at all."""
    denial = refusal(asked.request, decision, approval, now_ms)
    if denial:
        return denial
    if any(
        known.by == decision.by
        and known.answer in (decision.answer, "reject")
        and refusal(asked.request, known, approval, now_ms) is None
        for known in asked.decisions
    ):
        return Deny("approval.twice", f"{decision.by} has decided of request {asked.request.name} already")
    verdict = standing(asked, approval, now_ms)
    return verdict if isinstance(verdict, Deny) else None


def use(
    connection: sa.Connection, clock: Clock, name: str, act: Act, approval: Approval, used_for: str
) -> Verdict:
    """Use up the approval of a request for this very act; what isn't allowed is in the audit.

    Args:
        connection: of the caller's transaction, which does what is allowed.
        clock: of this host.
        name: digest of the request.
        act: what is about to be done.
        approval: who may approve, by the limits in force.
        used_for: names what is done.
    """
    row = connection.execute(sa.select(_requests).where(_requests.c.digest == name)).first()
    if row is None:
        denial = Deny("approval.unknown", f"request {name!r:.80} is not in the ledger")
        return _refused(connection, clock, name, act, denial)
    asked = _asked(connection, row)
    now_ms = clock.wall_ms()
    verdict = _usable(asked, act, approval, now_ms)
    _close_if_over(connection, asked.request, now_ms)
    if not isinstance(verdict, Allow):
        return _refused(connection, clock, name, act, verdict)
    mine = _requests.update().where(_requests.c.digest == name)
    connection.execute(mine.values(used_for=used_for))
    return verdict


def _usable(asked: Asked, act: Act, approval: Approval, now_ms: int) -> Verdict:
    return another(asked.request.act, act) or standing(asked, approval, now_ms)


def standing(asked: Asked, approval: Approval, now_ms: int) -> Verdict:
    """Whether a request is approved, waits, or can be approved no more."""
    if asked.used_for:
        return Deny(
            "approval.replayed", f"request {asked.request.name} was used for {asked.used_for} already"
        )
    return asked.closed or judged(asked.request, asked.decisions, approval, now_ms)


def _refused(
    connection: sa.Connection, clock: Clock, request: str, act: Act, verdict: Deny | Hold
) -> Deny | Hold:
    kind = "deny" if isinstance(verdict, Deny) else "hold"
    detail = {**asdict(act), "reason": verdict.reason}
    audit.note(connection, clock, kind, sweep=act.sweep, key=request, rule=verdict.rule, detail=detail)
    return verdict
