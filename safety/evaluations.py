"""Evaluations in the ledger: what an evaluator found under its own lease, within the caller's transaction."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from safety import audit, schema
from safety.approval import short
from safety.clock import Clock
from safety.errors import LeaseLost
from safety.lease import Lease
from safety.rules import is_finite_number
from safety.verdict import Deny

# rule of a promotion that rests on what no evaluator found
UNEVALUATED = "evaluation"
_table = schema.evaluations


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """What an evaluator found of a candidate.

    Attributes:
        weights: SHA-256 of the file that it evaluated.
        evidence: SHA-256 of what it measured, to which a promotion is bound.
        record: SHA-256 of all that it says of the candidate, its verdict included.
        score: of the weights themselves.
    """

    weights: str
    evidence: str
    record: str
    score: float

    def __post_init__(self) -> None:
        """Refuse what can't be compared."""
        if not is_finite_number(self.score):
            raise ValueError(f"score: expected a finite number, found {self.score!r:.60}")


def key_of(sweep: str, weights: str) -> str:
    """Key of the lease under which these weights are evaluated."""
    return f"{sweep}/evaluation-{weights[:12]}"


def attest(connection: sa.Connection, clock: Clock, lease: Lease, lineage: str, evaluated: Evaluated) -> None:
    """Write down what was found under a lease; twice is once.

    Raises:
        LeaseLost: it isn't the lease under which these weights are evaluated, or it is over.
    """
    if lease.trial != key_of(lease.sweep, evaluated.weights) or lease.state not in ("active", "revoked"):
        wanted = f"the open lease of the evaluation of {short(evaluated.weights)}"
        raise LeaseLost(f"{lease.key}: it is {lease.state}; expected {wanted}")
    if knows(connection, lineage, evaluated.record):
        return
    row = asdict(evaluated)
    connection.execute(
        _table.insert().values(**row, lineage=lineage, sweep=lease.sweep, at_ms=clock.wall_ms())
    )
    audit.note(
        connection, clock, "evaluate", sweep=lease.sweep, key=lease.key, detail={"lineage": lineage, **row}
    )


def knows(connection: sa.Connection, lineage: str, record: str) -> bool:
    """Whether an evaluator of a lineage has said this."""
    query = sa.select(_table.c.record).where(_table.c.lineage == lineage, _table.c.record == record)
    return connection.execute(query).first() is not None


def denied(connection: sa.Connection, lineage: str, evidence: str, score: float) -> Deny | None:
    """Why a champion may not rest on this evidence; None where it may.

    A lineage whose evaluations are nowhere in the ledger is not bound to any.
    """
    found = sa.select(_table.c.evidence, _table.c.score).where(_table.c.lineage == lineage)
    scores = {row.evidence: row.score for row in connection.execute(found)}
    if not scores:
        return None
    if evidence not in scores:
        return Deny(UNEVALUATED, f"no evaluator of lineage {lineage} found the evidence {short(evidence)}")
    if score != scores[evidence]:
        told = f"the evaluator found {scores[evidence]!r}, and {score!r} is told of {short(evidence)}"
        return Deny(UNEVALUATED, told)
    return None
