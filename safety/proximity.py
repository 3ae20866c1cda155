"""How near capabilities come to their ceilings, kept and warned of in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import sqlalchemy as sa

from safety import audit, schema
from safety.clock import Clock
from safety.lease import Lease
from safety.limits import Limits
from safety.prepared import Prepared
from safety.rules import is_finite_number

# per cent of a ceiling
LEVELS = (80, 90, 95)
# part of a ceiling: a sweep's highest score is written where it rises by more, and not with each report
STEP = 0.01

_table = schema.warnings
# looked at with each report
_SCORE = Prepared(
    sa.select(_table.c.score).where(
        _table.c.trial == sa.bindparam("trial"), _table.c.domain == sa.bindparam("domain")
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearness:
    """A domain's score beside its ceiling.

    Attributes:
        domain: what is measured.
        score: from 0 to the ceiling.
        ceiling: of the limits.
        level: the highest of `LEVELS` that is reached, in per cent; 0 for none.
    """

    domain: str
    score: float
    ceiling: float
    level: int

    @property
    def share(self) -> float:
        """Part of the ceiling that is reached."""
        return self.score / self.ceiling if self.ceiling else 1.0


def proximity(limits: Limits, domains: Mapping[str, object]) -> tuple[Nearness, ...]:
    """The domains of a report that have a ceiling, and which level each has reached; exactly at it counts."""
    found = []
    for domain, ceiling in limits.bounds.max_performance.items():
        score = domains.get(domain)
        if is_finite_number(score):
            level = _level(float(score), ceiling)
            found.append(Nearness(domain=domain, score=float(score), ceiling=ceiling, level=level))
    return tuple(found)


def _level(score: float, ceiling: float) -> int:
    # as the decimals that are written: 0.855 is 90% of 0.95
    reached = Fraction(repr(score)) * 100
    return max((level for level in LEVELS if reached >= level * Fraction(repr(ceiling))), default=0)


def keep(connection: sa.Connection, clock: Clock, lease: Lease, near: Nearness) -> None:
    """Keep how near a trial has come in a domain: as its sweep's highest, and its own from a level on."""
    _keep_highest(connection, lease.sweep, near)
    if near.level:
        _warn(connection, clock, lease, near)


def _keep_highest(connection: sa.Connection, sweep: str, near: Nearness) -> None:
    # under the sweep's own name, which is no trial's key
    known = _SCORE.first(connection, trial=sweep, domain=near.domain)
    values = {"score": near.score, "ceiling": near.ceiling}
    if known is None:
        names = {"trial": sweep, "domain": near.domain, "sweep": sweep}
        connection.execute(_table.insert().values(**names, **values, level=0))
    elif near.score > known[0] + STEP * near.ceiling:
        mine = _table.c.trial == sweep, _table.c.domain == near.domain
        connection.execute(_table.update().where(*mine).values(**values))


def _warn(connection: sa.Connection, clock: Clock, lease: Lease, near: Nearness) -> None:
    """Keep a trial's nearest approach in a domain; each level that is new to it has its audit row."""
    mine = _table.c.trial == lease.trial, _table.c.domain == near.domain
    known = connection.execute(sa.select(_table).where(*mine)).first()
    values = {"score": near.score, "ceiling": near.ceiling, "level": near.level}
    if known is None:
        names = {"trial": lease.trial, "domain": near.domain, "sweep": lease.sweep}
        connection.execute(_table.insert().values(**names, **values))
    elif near.level > known.level or near.score > known.score:
        connection.execute(_table.update().where(*mine).values(**values))
    if known is None or near.level > known.level:
        note = {"sweep": lease.sweep, "key": lease.trial, "rule": f"max_performance.{near.domain}"}
        audit.note(connection, clock, "warning", **note, detail=values)


def nearest(connection: sa.Connection, sweep: str) -> tuple[Nearness, ...]:
    """Of a sweep's domains that have come near their ceiling, each one's nearest approach."""
    mine = _table.c.sweep == sweep, _table.c.level > 0
    # a later row of a domain has the higher score
    query = sa.select(_table).where(*mine).order_by(_table.c.domain, _table.c.score)
    best = {row.domain: row for row in connection.execute(query)}
    return tuple(
        Nearness(domain=row.domain, score=row.score, ceiling=row.ceiling, level=row.level)
        for row in best.values()
    )


def highest(connection: sa.Connection, sweep: str) -> dict[str, float]:
    """By domain the highest score of a sweep's reports; below the first level it is up to `STEP` too low."""
    query = sa.select(_table.c.domain, sa.func.max(_table.c.score)).where(_table.c.sweep == sweep)
    return {row[0]: row[1] for row in connection.execute(query.group_by(_table.c.domain))}
