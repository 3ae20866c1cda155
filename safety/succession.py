"""Which champion a lineage is at: one took another's place, or was taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from safety import audit, schema
from safety.approval import Champion, short
from safety.claim import Claim, gflop
from safety.clock import Clock
from safety.document import FLOPS_PER_GFLOP
from safety.errors import LedgerError
from safety.latch import readable
from safety.rules import is_finite_number
from safety.sweeps import Sweep

_table = schema.promotions
# what a lineage began with is no promotion of it
BASE = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollback:
    """A lineage went back: after the promotion `after` it was at the promotion `to`, or at BASE."""

    to: int
    after: int


def line(promoted: Sequence[int], rollbacks: Sequence[Rollback]) -> list[int]:
    """The promotions that follow one another to the present champion; none where the lineage is at its base.

    Args:
        promoted: numbers of all promotions of a lineage, which only rise.
        rollbacks: in order.
    """
    standing: list[int] = []
    left = list(rollbacks)
    for number in promoted:
        while left and left[0].after < number:
            standing = _back(standing, left.pop(0))
        standing.append(number)
    for rollback in left:
        standing = _back(standing, rollback)
    return standing


def _back(standing: Sequence[int], rollback: Rollback) -> list[int]:
    return [number for number in standing if number <= rollback.to]


Row = sa.Row[tuple[object, ...]]


def rows_of(connection: sa.Connection, lineage: str) -> Sequence[Row]:
    """All promotions of a lineage, in order."""
    query = sa.select(_table).where(_table.c.lineage == lineage).order_by(_table.c.id)
    return connection.execute(query).all()


def champion_in(row: Row) -> Champion | None:
    """Who was promoted; None where nobody told."""
    if row.artifact is None:
        return None
    return Champion(
        artifact=row.artifact,
        parent=row.parent,
        generation=row.generation,
        evidence=row.evidence,
        train_gflop=row.train_gflop,
    )


def standing(connection: sa.Connection, lineage: str) -> list[Row]:
    """The promotions that led to a lineage's present champion, the oldest first."""
    rows, table = rows_of(connection, lineage), schema.rollbacks
    query = sa.select(table.c.to, table.c.after).where(table.c.lineage == lineage).order_by(table.c.id)
    rollbacks = [Rollback(to=to, after=after) for to, after in connection.execute(query)]
    on_it = set(line([row.id for row in rows], rollbacks))
    return [row for row in rows if row.id in on_it]


def current(connection: sa.Connection, lineage: str) -> Champion | None:
    """The champion that a lineage is at; None for what it began with, and for one that nobody told of."""
    found = standing(connection, lineage)
    return champion_in(found[-1]) if found else None


def with_ancestors(connection: sa.Connection, sweep: Sweep, claim: Claim) -> Claim:
    """A claim whose ancestors' training is at least that of the champion which its lineage is at.

    That is conservative: a candidate with weights of its own is refused as one that inherits. Which it is,
    only its driver knows, and could say of all that they have weights of their own.
    """
    if sweep.limits.bounds.max_train_flops is None:
        return claim
    # the most on the way to the champion: a later one that was told with less had ancestors all the same
    known = max((row.train_gflop or 0 for row in standing(connection, sweep.lineage)), default=0)
    # what is told exactly is not less for being rounded up here
    if gflop(claim.ancestor_flops) >= known:
        return claim
    return replace(claim, ancestor_flops=known * FLOPS_PER_GFLOP)


def parent_of_next(connection: sa.Connection, lineage: str) -> str | None:
    """Artifact that the next champion follows; "" for what the lineage began with, None where nobody told."""
    found = standing(connection, lineage)
    return _artifact(found[-1]) if found else ""


def score_of_present(
    connection: sa.Connection, clock: Clock, lineage: str, follows: Champion, told: float
) -> float | None:
    """The score of the champion that another one would follow, as the ledger has it; None where it has none.

    It is what its promotion told; of what the lineage began with, what was told first, which is written down
    here. Nothing is known of one that the other doesn't say it follows.

    Args:
        connection: of the caller's transaction.
        clock: of this host.
        lineage: of both.
        follows: that would be promoted.
        told: the present champion's score, as its successor's driver tells it.
    """
    if follows.parent != parent_of_next(connection, lineage):
        return None
    found, table = standing(connection, lineage), schema.bases
    if found:
        return float(found[-1].new)
    score = connection.scalar(sa.select(table.c.score).where(table.c.lineage == lineage))
    if score is None and is_finite_number(told):
        connection.execute(table.insert().values(lineage=lineage, score=told, at_ms=clock.wall_ms()))
        audit.note(connection, clock, "base", key=lineage, detail={"lineage": lineage, "score": told})
    return None if score is None else float(score)


def artifact_of(connection: sa.Connection, number: int) -> str:
    """Artifact of a promotion; "" for BASE, and where nobody told of it."""
    return connection.scalar(sa.select(_table.c.artifact).where(_table.c.id == number)) or ""


def _artifact(row: Row) -> str | None:
    champion = champion_in(row)
    return champion.artifact if champion else None


def number_of(connection: sa.Connection, lineage: str, artifact: str) -> int:
    """The newest promotion of an artifact among those that led to the present champion; BASE for "".

    Raises:
        LedgerError: there is none.
    """
    if not artifact:
        return BASE
    for row in reversed(standing(connection, lineage)):
        if row.artifact == artifact:
            return int(row.id)
    raise LedgerError(
        f"lineage {lineage}: {short(artifact)} is none of the champions that led to its present one; "
        "expected the digest of one of them, or none for what it began with"
    )


def go_back(
    connection: sa.Connection, clock: Clock, lineage: str, to: int, reason: str, by: str, **told: object
) -> bool:
    """Make an earlier champion of a lineage its present one; whether it wasn't yet.

    Args:
        connection: of the caller's transaction.
        clock: of this host.
        lineage: that goes back.
        to: a promotion that led to the present champion, or BASE.
        reason: for people.
        by: who decides it.
        told: what else the audit tells of it.
    """
    found = standing(connection, lineage)
    undone = [row for row in found if row.id > to]
    if not undone:
        return False
    said = {"reason": readable(reason), "by": readable(by)}
    after = rows_of(connection, lineage)[-1].id
    row = {"lineage": lineage, "to": to, "after": after, "at_ms": clock.wall_ms(), **said}
    connection.execute(schema.rollbacks.insert().values(**row))
    kept = [row for row in found if row.id <= to]
    detail = {
        "lineage": lineage,
        "from": _artifact(found[-1]) or "",
        "to": (_artifact(kept[-1]) or "") if kept else "",
        "undone": [row.key for row in undone],
        **said,
        **told,
    }
    audit.note(connection, clock, "rollback", key=lineage, detail=detail)
    return True
