"""How near capabilities come to their ceilings, and the warnings of it in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import sqlalchemy as sa

from safety import audit, schema
from safety.clock import Clock
from safety.lease import Lease
from safety.limits import Limits
from safety.rules import is_finite_number

# per cent of a ceiling
LEVELS = (80, 90, 95)

_table = schema.warnings


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearness:
    """A domain's score that has reached a level of its ceiling.

    Attributes:
        domain: what is measured.
        score: of the trial, from 0 to the ceiling.
        ceiling: of the limits.
        level: the highest of `LEVELS` that is reached, in per cent.
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
    """The domains of a report that have reached a level of their ceiling; exactly at it counts."""
    found = []
    for domain, ceiling in limits.bounds.max_performance.items():
        score = domains.get(domain)
        if is_finite_number(score):
            level = _level(float(score), ceiling)
            if level:
                found.append(Nearness(domain=domain, score=float(score), ceiling=ceiling, level=level))
    return tuple(found)


def _level(score: float, ceiling: float) -> int:
    # as the decimals that are written: 0.855 is 90% of 0.95
    reached = Fraction(repr(score)) * 100
    return max((level for level in LEVELS if reached >= level * Fraction(repr(ceiling))), default=0)


def warn(connection: sa.Connection, clock: Clock, lease: Lease, near: Nearness) -> None:
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
    query = sa.select(_table).where(_table.c.sweep == sweep).order_by(_table.c.domain, _table.c.score)
    # a later row of a domain has the higher score
    best = {row.domain: row for row in connection.execute(query)}
    return tuple(
        Nearness(domain=row.domain, score=row.score, ceiling=row.ceiling, level=row.level)
        for row in best.values()
    )
