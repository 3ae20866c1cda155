"""What people are shown before they decide of a promotion; the ledger keeps it with the request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """One capability: scores in [0, 1], and the ceiling that the limits name; None where they name none."""

    current: float | None
    proposed: float
    ceiling: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """What a model costs: parameters, and FLOPs of its and its ancestors' training."""

    params: int
    train_flops: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A promotion that is proposed. All scores are the independent evaluator's.

    Attributes:
        lineage, generation: that it would be.
        current, proposed: scores.
        improvement: relative; None where it is undefined.
        noise: the difference of the scores, and what noise leaves of it, in words.
        seeds: trainings that each score is the mean of.
        is_sealed: whether they are of data that no search has seen.
        reported: score that the candidate's worker reported; None where that is not known.
        domains: by name.
        difference: of the architectures and trainings: old and new value by parameter.
        before, after: what both cost.
        ancestors: the champions before it, the oldest first: generation and artifact.
        held: why the ledger holds it until people have decided; "" where it doesn't.
        incident: how the reported score differs beyond noise; "" where it doesn't.
    """

    lineage: str
    generation: int
    current: float
    proposed: float
    improvement: float | None
    noise: str
    seeds: int
    is_sealed: bool
    reported: float | None
    domains: Mapping[str, Domain]
    difference: Mapping[str, tuple[Any, Any]]
    before: Size
    after: Size
    ancestors: tuple[str, ...] = ()
    held: str = ""
    incident: str = ""

    def to_json(self) -> str:
        """The whole of it in one line."""
        return json.dumps(asdict(self), sort_keys=True)


def from_json(text: str) -> Proposal | None:
    """A proposal; None where the text is none, such as another program's words."""
    try:
        told = json.loads(text)
        told["domains"] = {name: Domain(**domain) for name, domain in told["domains"].items()}
        told["difference"] = {name: tuple(both) for name, both in told["difference"].items()}
        told |= {name: Size(**told[name]) for name in ("before", "after")}
        told["ancestors"] = tuple(told["ancestors"])
        return Proposal(**told)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def lines_of(proposal: Proposal) -> list[str]:
    """The proposal for people, a line for each thing that they should weigh."""
    rate = "undefined" if proposal.improvement is None else f"{proposal.improvement:+.1%}"
    reported = "" if proposal.reported is None else f"; its worker reported {proposal.reported:.4f}"
    data = "sealed data" if proposal.is_sealed else "the search's own hold-out: the task has no sealed data"
    return [
        f"generation {proposal.generation} of lineage {proposal.lineage}",
        f"current score   {proposal.current:.4f}",
        f"proposed score  {proposal.proposed:.4f}  ({rate})",
        f"difference      {proposal.noise}",
        f"evaluated       by {proposal.seeds} seeds on {data}{reported}",
        *_domain_lines(proposal.domains),
        *_difference_lines(proposal.difference),
        _cost_line("parameters", proposal.before.params, proposal.after.params),
        _cost_line("training FLOPs, ancestors' too", proposal.before.train_flops, proposal.after.train_flops),
        f"ancestors       {' > '.join(proposal.ancestors) or 'none'}",
        *([f"HELD            {proposal.held}"] if proposal.held else []),
        *([f"INCIDENT        {proposal.incident}"] if proposal.incident else []),
    ]


def _domain_lines(domains: Mapping[str, Domain]) -> list[str]:
    lines = []
    for name, domain in domains.items():
        before = "not measured" if domain.current is None else f"{domain.current:.4f}"
        ceiling = "no ceiling" if domain.ceiling is None else f"ceiling {domain.ceiling:g}"
        share = f", {domain.proposed / domain.ceiling:.0%} of it" if domain.ceiling else ""
        lines.append(f"  {name}: {before} becomes {domain.proposed:.4f} ({ceiling}{share})")
    return lines


def _difference_lines(difference: Mapping[str, tuple[Any, Any]]) -> list[str]:
    if not difference:
        return ["architecture    unchanged: it was trained further"]
    return ["architecture", *(f"  {name}: {old} becomes {new}" for name, (old, new) in difference.items())]


def _cost_line(what: str, old: int, new: int) -> str:
    times = f" ({new / old:.2f} times)" if old else ""
    return f"{what}: {old:,} becomes {new:,}{times}"
