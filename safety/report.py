"""The report on a ledger for a regulator or a safety board, as plain values that JSON can tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from decimal import Context, Decimal
from typing import Any

from safety.budgets import CLUSTER, Budget
from safety.claim import TRAIN_GFLOP
from safety.document import FLOPS_PER_GFLOP
from safety.history import CEILINGS, INCIDENTS, TOLD, Event, History, Refusals, SweepHistory
from safety.limits import Limits
from safety.snapshot import Snapshot, SweepState
from safety.unverified import Evidence, unverified

# training compute that laws and thresholds in discussion name, as powers of ten
EXPONENTS = (23, 25, 26)


@dataclass(frozen=True, kw_only=True, slots=True)
class Software:
    """Versions of what is installed here, and what each run wrote down when it began."""

    here: Mapping[str, str]
    runs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def report_on(
    snapshot: Snapshot, told: History, evidence: Evidence, software: Software, *, url: str, now_ms: int
) -> dict[str, Any]:
    """Everything that a ledger and its audit say, and what they don't.

    Args:
        snapshot: the ledger at one moment.
        told: its audit up to that moment.
        evidence: how that audit was checked.
        software: versions.
        url: of the ledger, without a password.
        now_ms: Unix time in milliseconds.
    """
    training = _training(snapshot, told)
    policies = {digest: _policy(digest, text) for digest, text in snapshot.policies.items()}
    return {
        "format": 1,
        "made_at": utc(now_ms),
        "ledger": {
            "url": url,
            "id": snapshot.head.ledger if snapshot.head else "",
            "rows": told.kinds.total(),
        },
        "audit": _audit(evidence),
        "killed": None if snapshot.killed is None else _stamped(asdict(snapshot.killed)),
        "training": training,
        "lineage": {
            "promotions": _events(told.promotions),
            "sweeps": [_sweep(name, found, snapshot) for name, found in told.sweeps.items()],
        },
        "policies": {
            digest: limits.model_dump(mode="json") if limits else None for digest, limits in policies.items()
        },
        "budgets": [_budget(budget, told) for budget in snapshot.budgets],
        "ceilings": [row for sweep in snapshot.sweeps for row in _ceilings(sweep, told, policies)],
        "refusals": _refusals(told.refusals),
        "kill_switch": _events(told.switch),
        "approvals": _events(told.approvals),
        "drills": _events(told.drills),
        "incidents": {
            "rows": sum(told.kinds[kind] for kind in INCIDENTS),
            "latest": _events(told.incidents),
        },
        "software": {"here": dict(software.here), "runs": {n: dict(v) for n, v in software.runs.items()}},
        "not_verified": unverified(evidence, told, agree=training["agree"], policies=policies),
    }


def utc(ms: int) -> str:
    """Unix time in milliseconds as people read it; the number itself where no calendar reaches it."""
    try:
        at = datetime.fromtimestamp(ms / 1000, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _audit(evidence: Evidence) -> dict[str, Any]:
    found = asdict(evidence)
    checked = found.pop("checked")
    newest = checked.pop("newest")
    return {
        **found,
        "places": list(evidence.places),
        "whole": not evidence.checked.problem,
        **checked,
        "newest": newest and _stamped(newest),
    }


def _stamped(fields: dict[str, Any]) -> dict[str, Any]:
    return {"at": utc(fields.pop("at_ms")), **fields}


# --- training compute


def _training(snapshot: Snapshot, told: History) -> dict[str, Any]:
    """Training FLOPs of all sweeps, from three places that must agree."""
    gflop = {
        "budgets": sum(b.spent + b.overrun for b in snapshot.budgets if _is_training(b)),
        "leases": snapshot.used.get(TRAIN_GFLOP, 0),
        "audit": told.used[TRAIN_GFLOP],
    }
    most = max(gflop.values()) * FLOPS_PER_GFLOP
    return {
        "train_flops": most,
        "held_flops": sum(b.held for b in snapshot.budgets if _is_training(b)) * FLOPS_PER_GFLOP,
        "gflop": gflop,
        "agree": len(set(gflop.values())) == 1,
        "shares": [{"of": f"1e{power}", "share": _share_of_power(most, power)} for power in EXPONENTS],
    }


def _is_training(budget: Budget) -> bool:
    return budget.scope == CLUSTER and budget.resource == TRAIN_GFLOP


def _share_of_power(amount: int, power: int) -> str:
    """An exact share of a power of ten, in decimals."""
    text = f"{Context(prec=100).scaleb(Decimal(amount), -power):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# --- sweeps, budgets and ceilings


def _sweep(name: str, found: SweepHistory, snapshot: Snapshot) -> dict[str, Any]:
    state = next((sweep for sweep in snapshot.sweeps if sweep.name == name), None)
    kinds = found.kinds
    return {
        "name": name,
        "state": state.state if state else "not in the ledger",
        "reason": state.reason if state else "",
        "opened": [
            {"at": utc(event.at_ms), "row": event.seq, "policy": str(event.detail.get("policy", ""))}
            for event in found.opened
        ],
        "admitted": kinds["reserve"],
        "refused": kinds["deny"],
        "settled": kinds["settle"],
        "forfeited": kinds["forfeit"],
        "void": kinds["void"],
        "incidents": kinds["incident"],
        "train_flops": found.used[TRAIN_GFLOP] * FLOPS_PER_GFLOP,
        "used": {name: found.used[name] for name in TOLD if found.used[name]},
    }


def _budget(budget: Budget, told: History) -> dict[str, Any]:
    """A budget now, and the most of it that was ever out, from the audit."""
    place = budget.scope, budget.resource
    known = budget.resource in TOLD
    peak = told.peaks.get(place, 0) if known else budget.spent + budget.held
    return {
        "scope": budget.scope,
        "resource": budget.resource,
        "cap": budget.target if budget.limited else None,
        "spent": budget.spent,
        "held": budget.held,
        "overrun": budget.overrun,
        "share": budget.share if budget.limited else None,
        "peak": peak,
        "peak_share": share(peak, budget.target) if budget.limited else None,
        "agrees": not known or told.out[place] == budget.spent + budget.held,
    }


def share(amount: float, ceiling: float) -> float:
    """Part of a ceiling; 1 where that is nothing."""
    return amount / ceiling if ceiling else 1.0


def _policy(digest: str, text: str) -> Limits | None:
    """The limits that a digest stands for; None where the text isn't what the digest was made of."""
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        return None
    return Limits.model_validate_json(text)


def _ceilings(
    sweep: SweepState, told: History, policies: Mapping[str, Limits | None]
) -> Iterable[dict[str, Any]]:
    """Ceilings of one candidate with the largest admitted; how high scores came isn't in the audit."""
    limits = policies.get(sweep.policy)
    if limits is None:
        return
    largest = told.sweeps[sweep.name].largest if sweep.name in told.sweeps else {}
    for ceiling, amount in CEILINGS.items():
        limit, found = getattr(limits.bounds, ceiling), largest.get(amount)
        if limit is None:  # only `max_train_flops` may be left out
            continue
        part = None if found is None else share(found, limit)
        yield _ceiling(sweep.name, ceiling, limit, found, part)
    for domain, score in limits.bounds.max_performance.items():
        yield _ceiling(sweep.name, f"max_performance.{domain}", score, None, None)


def _ceiling(
    sweep: str, ceiling: str, limit: float, largest: int | None, part: float | None
) -> dict[str, Any]:
    return {"sweep": sweep, "ceiling": ceiling, "limit": limit, "largest": largest, "share": part}


# --- rows


def _refusals(found: Mapping[tuple[str, str], Refusals]) -> list[dict[str, Any]]:
    """By rule, the most frequent first."""
    rows = [
        {
            "kind": kind,
            "rule": rule,
            "count": refusals.count,
            "first": utc(refusals.first_ms),
            "last": utc(refusals.last_ms),
            "reason": refusals.reason,
        }
        for (kind, rule), refusals in found.items()
    ]
    return sorted(rows, key=lambda row: (str(row["kind"]), -int(str(row["count"]))))


def _events(events: Iterable[Event]) -> list[dict[str, Any]]:
    return [
        {
            "row": event.seq,
            "at": utc(event.at_ms),
            "kind": event.kind,
            "sweep": event.sweep,
            "key": event.key,
            "rule": event.rule,
            "detail": dict(event.detail),
        }
        for event in events
    ]
