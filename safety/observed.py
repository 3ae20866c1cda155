"""What a ledger tells whoever draws curves of it: an overview, improvements, and its audit counted."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from safety import overview, promotions, schema
from safety.drills import Drill
from safety.history import REFUSALS
from safety.improvement import MS_PER_HOUR, Promotion, compounded, within_window
from safety.limits import Limits
from safety.overview import Overview
from safety.tightening import tightest

ADMISSION, DRILL = "reserve", "drill"
# no limits look further back
_LONGEST_WINDOW_MS = 8760 * MS_PER_HOUR
_audit = schema.audit


@dataclass(frozen=True, kw_only=True, slots=True)
class Improvement:
    """How much a lineage has improved within the window of the limits that leave it least room.

    Attributes:
        lineage: its name.
        rate: of its promotions on top of each other; None where one of them is undefined.
        ceiling: of the limits.
    """

    lineage: str
    rate: float | None
    ceiling: float

    @property
    def is_number(self) -> bool:
        """Whether the rate is one."""
        return self.rate is not None and math.isfinite(self.rate)

    @property
    def share(self) -> float:
        """Part of the ceiling that is reached; what is no number is beyond any."""
        return math.inf if self.rate is None else self.rate / self.ceiling


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Rows of an audit up to one of them, counted.

    Attributes:
        seq: number of the last row that was looked at.
        rows: how many there are of a kind and a rule: admissions, refusals and canaries of drills.
        canaries: Unix time of each canary's row, and the milliseconds to its death; None where it outlived
            the wait.
    """

    seq: int = 0
    rows: Mapping[tuple[str, str], int] = field(default_factory=Counter)
    canaries: tuple[tuple[int, int | None], ...] = ()

    def of_drill(self, drill: Drill) -> list[int | None]:
        """What the canaries of the latest drill took to die, in milliseconds."""
        return [latency for at_ms, latency in self.canaries if at_ms >= drill.at_ms]


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """A ledger at one moment.

    Attributes:
        alive_ms: Unix time in milliseconds when its governor last took calls.
    """

    alive_ms: int
    overview: Overview
    improvements: Sequence[Improvement]
    tally: Tally


def observe(connection: sa.Connection, *, now_ms: int, alive_ms: int, before: Tally) -> Observed:
    """Read all of it within the caller's transaction; of the audit, the rows after those counted before."""
    found = overview.overview(connection)
    return Observed(
        alive_ms=alive_ms,
        overview=found,
        improvements=_improvements(connection, now_ms, found),
        tally=_counted(connection, before),
    )


def _counted(connection: sa.Connection, before: Tally) -> Tally:
    last = connection.scalar(sa.select(sa.func.max(_audit.c.seq))) or 0
    later = _audit.c.seq > before.seq, _audit.c.seq <= last
    kinds = _audit.c.kind.in_((ADMISSION, DRILL, *REFUSALS))
    query = sa.select(_audit.c.kind, _audit.c.rule, sa.func.count()).where(*later, kinds)
    new = {(kind, rule): count for kind, rule, count in connection.execute(query.group_by("kind", "rule"))}
    canaries: list[tuple[int, int | None]] = []
    if any(kind == DRILL for kind, _ in new):
        drilled = sa.select(_audit.c.at_ms, _audit.c.detail).where(*later, _audit.c.kind == DRILL)
        rows = connection.execute(drilled.order_by(_audit.c.seq))
        canaries = [(at_ms, json.loads(detail)["latency_ms"]) for at_ms, detail in rows]
    return Tally(seq=last, rows=Counter(before.rows) + Counter(new), canaries=(*before.canaries, *canaries))


def _improvements(connection: sa.Connection, now_ms: int, found: Overview) -> list[Improvement]:
    """Of the lineages that sweeps work on, and of those that were promoted in lately."""
    table = schema.promotions
    lately = sa.select(table.c.lineage).where(table.c.at_ms >= now_ms - _LONGEST_WINDOW_MS).distinct()
    lineages = {*connection.scalars(lately), *(running.sweep.lineage for running in found.sweeps)}
    return [_improvement(connection, now_ms, found, lineage) for lineage in sorted(lineages)]


def _improvement(connection: sa.Connection, now_ms: int, found: Overview, lineage: str) -> Improvement:
    history = promotions.of_lineage(connection, lineage)
    policies = _policies(connection, found, lineage)
    return max((_under(limits, history, lineage, now_ms) for limits in policies), key=lambda one: one.share)


def _policies(connection: sa.Connection, found: Overview, lineage: str) -> list[Limits]:
    """Limits in force of the lineage's sweeps, the closed ones too: one's loose limits free no other."""
    policies, sweeps = schema.policies, schema.sweeps
    query = sa.select(policies.c.limits).join(sweeps).where(sweeps.c.lineage == lineage).distinct()
    own = [Limits.model_validate_json(text) for text in connection.scalars(query)]
    everywhere = found.version.parsed if found.version else None
    return [tightest(limits, everywhere) for limits in own] if everywhere else own


def _under(limits: Limits, history: Sequence[Promotion], lineage: str, now_ms: int) -> Improvement:
    rate = compounded(within_window(limits, history, now_ms))
    return Improvement(lineage=lineage, rate=rate, ceiling=limits.max_improvement_rate)
