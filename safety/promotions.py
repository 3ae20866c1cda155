"""Promotions in the ledger: which champion took whose place, within the caller's transaction."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import sqlalchemy as sa

from safety import approvals, audit, evaluations, incidents, schema, succession, sweeps
from safety.approval import Champion, out_of_line
from safety.approvals import Asked
from safety.clock import Clock
from safety.emergency import Incident, last_safe
from safety.errors import KeyReused, LedgerError
from safety.improvement import GENERATIONS, Mode, Promotion, judge_promotion
from safety.lease import KILLED
from safety.rules import judge, judge_trained
from safety.sweeps import Sweep
from safety.verdict import Allow, Deny, Hold, Verdict

# who shuts a lineage down that runs away
LIMITS = "the limits"
# rule of a promotion that tells another score of the present champion than the ledger has
OLD_SCORE = "old_score"
_table = schema.promotions


def candidate(
    connection: sa.Connection, clock: Clock, sweep: str, key: str, old: float, new: float, mode: Mode
) -> Promotion:
    """What a sweep would promote now.

    Raises:
        LedgerError: there is no such sweep.
    """
    lineage = sweeps.find(connection, sweep).lineage
    return Promotion(lineage=lineage, key=key, at_ms=clock.wall_ms(), old=old, new=new, mode=mode)


def of_lineage(connection: sa.Connection, lineage: str) -> list[Promotion]:
    """The promotions of a lineage, in order, and which of them were rolled back, or judged at a release."""
    on_line = {row.id for row in succession.standing(connection, lineage)}
    cleared = incidents.cleared(connection, lineage)
    return [
        replace(_promotion(row), rolled_back=row.id not in on_line, cleared=row.id <= cleared)
        for row in succession.rows_of(connection, lineage)
    ]


def _promotion(row: sa.Row[tuple[object, ...]]) -> Promotion:
    return Promotion(
        lineage=row.lineage, key=row.key, at_ms=row.at_ms, old=row.old, new=row.new, mode=row.mode
    )


def judged(connection: sa.Connection, clock: Clock, sweep: str, wanted: Promotion) -> Verdict:
    """The verdict of the limits of every sweep of the lineage; what isn't allowed is recorded.

    A denial is an incident that shuts the lineage down until it is released. Not so where the lineage has
    had all its generations.
    """
    siblings = sweeps.of_lineage(connection, wanted.lineage)
    history = of_lineage(connection, wanted.lineage)
    # one sweep's loose limits are no way around another's
    policies = {sibling.limits.digest: sibling.limits for sibling in siblings}
    verdict = _strictest([judge_promotion(limits, history, wanted) for limits in policies.values()])
    if isinstance(verdict, Allow):
        return verdict
    is_incident = isinstance(verdict, Deny) and verdict.rule != GENERATIONS
    kind = "incident" if is_incident else "deny" if isinstance(verdict, Deny) else "hold"
    detail = {"reason": verdict.reason, "lineage": wanted.lineage}
    audit.note(connection, clock, kind, sweep=sweep, key=wanted.key, rule=verdict.rule, detail=detail)
    if is_incident:
        shut_down(connection, clock, wanted.lineage, verdict.reason, LIMITS, rule=verdict.rule, sweep=sweep)
    return verdict


def shut_down(
    connection: sa.Connection,
    clock: Clock,
    lineage: str,
    reason: str,
    by: str,
    *,
    rule: str = incidents.OPERATOR,
    sweep: str = "",
) -> Incident:
    """Freeze a lineage, to be reverted to its last known safe champion; see `incidents.shut_down`."""
    found = succession.standing(connection, lineage)
    kept = last_safe([_promotion(row) for row in found], _factor(connection, lineage))
    safe = found[kept - 1].id if kept else succession.BASE
    return incidents.shut_down(connection, clock, lineage, reason, by, safe=safe, rule=rule, sweep=sweep)


def _factor(connection: sa.Connection, lineage: str) -> float:
    try:
        return min(one.limits.runaway_factor for one in sweeps.of_lineage(connection, lineage))
    except ValueError:  # of limits that can't be read, the strictest that there is
        return 1.0


def _strictest(verdicts: list[Verdict]) -> Verdict:
    """Deny over Hold over Allow; of several holds the longest, and a human's above any time."""
    holds = [verdict for verdict in verdicts if isinstance(verdict, Hold)]
    longest = sorted(holds, key=lambda hold: hold.until_ms or math.inf, reverse=True)
    denials = [verdict for verdict in verdicts if isinstance(verdict, Deny)]
    # the first one names the rule: a shutdown goes before the end of a lineage
    return judge([*longest, *sorted(denials, key=lambda denial: denial.rule == GENERATIONS)])


def promote(
    connection: sa.Connection,
    clock: Clock,
    sweep: str,
    wanted: Promotion,
    champion: Champion | None,
    request: str,
) -> Verdict:
    """Judge a promotion, and write it down where it is allowed; the same again is allowed as it was.

    Args:
        connection: of the caller's transaction.
        clock: of this host.
        sweep: that promotes.
        wanted: its scores.
        champion: its artifact.
        request: digest of the request that was approved for it; "" for none.

    Raises:
        KeyReused: its key was used for another promotion.
    """
    known = connection.execute(sa.select(_table).where(_table.c.key == wanted.key)).first()
    if known:
        _require_same(known, wanted, champion)
        return Allow()
    found = sweeps.find(connection, sweep)
    if found.state in ("frozen", KILLED):
        denial = Deny(found.state, f"sweep {sweep} is {found.state}: {found.reason}")
        told = {"reason": denial.reason, "lineage": wanted.lineage}
        audit.note(connection, clock, "deny", sweep=sweep, key=wanted.key, rule=denial.rule, detail=told)
        return denial
    other = _other_scores(connection, clock, wanted, champion) if champion else None
    if champion and other:
        told = {**asdict(champion), "reason": other.reason}
        audit.note(connection, clock, "deny", sweep=sweep, key=wanted.key, rule=other.rule, detail=told)
        return other
    verdict = judged(connection, clock, sweep, wanted)
    lifts = approvals.lifts(connection, request)
    if isinstance(verdict, Allow) or _is_lifted(verdict, lifts):
        verdict = _approved(connection, clock, found, wanted.key, champion, request, lifts)
    if isinstance(verdict, Allow):
        values = {name: getattr(wanted, name) for name in ("lineage", "key", "at_ms", "old", "new", "mode")}
        values |= asdict(champion) if champion else {}
        connection.execute(_table.insert().values(**values, sweep=sweep))
        detail = {"lineage": wanted.lineage, "old": wanted.old, "new": wanted.new, "mode": wanted.mode}
        if champion:
            detail |= {**asdict(champion), "request": request, "lifts": lifts}
        audit.note(connection, clock, "promote", sweep=sweep, key=wanted.key, detail=detail)
    return verdict


def _other_scores(
    connection: sa.Connection, clock: Clock, wanted: Promotion, champion: Champion
) -> Deny | None:
    """Why a promotion can't be judged by the scores that it tells: the ledger has others; None where not."""
    known = succession.score_of_present(connection, clock, wanted.lineage, champion, wanted.old)
    if known is not None and known != wanted.old:
        told = f"lineage {wanted.lineage}: its champion scored {known!r}, and {wanted.old!r} is told of it"
        return Deny(OLD_SCORE, told)
    return evaluations.denied(connection, wanted.lineage, champion.evidence, wanted.new)


def _require_same(known: sa.Row[tuple[object, ...]], wanted: Promotion, champion: Champion | None) -> None:
    if succession.champion_in(known) != champion or replace(_promotion(known), at_ms=wanted.at_ms) != wanted:
        raise KeyReused(f"{wanted.key}: this key was used for another promotion")


def _is_lifted(verdict: Verdict, rule: str) -> bool:
    """Whether what is held waits for people, not for time, and for those who lift this rule's hold."""
    return isinstance(verdict, Hold) and not verdict.until_ms and verdict.rule == rule


def _approved(
    connection: sa.Connection,
    clock: Clock,
    sweep: Sweep,
    key: str,
    champion: Champion | None,
    request: str,
    lifts: str,
) -> Verdict:
    """Use up the approval of a promotion, where the limits of a sweep of the lineage ask for one."""
    siblings = sweeps.of_lineage(connection, sweep.lineage)
    trained = champion.train_gflop if champion else None
    denial = judge([judge_trained(sibling.limits, trained) for sibling in siblings])
    if champion and not isinstance(denial, Deny):
        denial = _out_of_line(connection, sweep.lineage, champion) or denial
    if isinstance(denial, Deny):
        detail = {**(asdict(champion) if champion else {}), "request": request, "reason": denial.reason}
        audit.note(connection, clock, "deny", sweep=sweep.name, key=key, rule=denial.rule, detail=detail)
        return denial
    if not (lifts or any(sibling.limits.require_approval for sibling in siblings)):
        return Allow()
    if champion is None or not request:
        verdict = Hold("require_approval", f"{key}: the limits ask for an approval, and none was shown")
        detail = {"reason": verdict.reason}
        audit.note(connection, clock, "hold", sweep=sweep.name, key=key, rule=verdict.rule, detail=detail)
        return verdict
    act = champion.act(sweep.name, sweep.limits.digest, lifts)
    approval = sweeps.approval_in_force(connection, sweep.name)
    return approvals.use(connection, clock, request, act, approval, f"promotion {key}")


def _out_of_line(connection: sa.Connection, lineage: str, champion: Champion) -> Deny | None:
    past = [succession.champion_in(row) for row in succession.rows_of(connection, lineage)]
    return out_of_line(champion, past, lineage, succession.parent_of_next(connection, lineage))


def ask(
    connection: sa.Connection,
    clock: Clock,
    sweep: str,
    champion: Champion,
    by: str,
    about: str,
    lifts: str = "",
) -> Asked:
    """Ask people to approve a promotion under the limits that are in force now, though `lifts` holds it.

    One that they have rejected stays so: a sweep that goes on must not ask until somebody agrees.

    Raises:
        LedgerError: there is no such sweep, or the limits name no approvers.
    """
    approval = sweeps.approval_in_force(connection, sweep)
    if not approval.is_named:
        raise LedgerError(f"sweep {sweep}: its limits name no approvers; expected some under `approval`")
    act = champion.act(sweep, sweeps.find(connection, sweep).limits.digest, lifts)
    return approvals.rejected(connection, act) or approvals.ask(connection, clock, act, approval, by, about)
