"""What a candidate may tell that is not so: a claim, a model, a report, a usage."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from safety.claim import USED, Claim, Measured, Usage
from safety.rules import Report


class Grenade(float):
    """A number that raises as soon as somebody reads it."""

    def __float__(self) -> float:
        """Raise, as an object of foreign code may."""
        raise RuntimeError("not to be read")


NO_SCORES: tuple[object, ...] = (
    float("nan"),
    float("inf"),
    float("-inf"),
    None,
    "0.9",
    True,
    10**400,
    [0.9],
    Grenade(0.5),
)
NO_AMOUNTS: tuple[object, ...] = (-1, float("nan"), "12", None, True, 2**63, 2**80, 10**400, 0.5)


def lying_report(rng: Random, report: Report, claim: Claim, domain: str) -> Report:
    """A report that no rule may let pass."""
    kinds = (
        lambda: replace(report, score=rng.choice(NO_SCORES)),
        lambda: replace(report, domains={domain: rng.choice(NO_SCORES)}),
        lambda: replace(report, domains={domain: 1.0}),
        lambda: replace(report, usage=_over(rng, report.usage, claim)),
        lambda: replace(report, usage=_no_amount(rng, report.usage)),
        lambda: replace(report, usage=replace(report.usage, lease=10**9)),
    )
    return rng.choice(kinds)()


def lying_usage(rng: Random, usage: Usage, claim: Claim) -> Usage:
    """A usage that is too small, too large, or no number."""
    kinds = (
        lambda: replace(usage, train_flops=0, gpu_ms=0),
        lambda: _over(rng, usage, claim),
        lambda: _no_amount(rng, usage),
    )
    return rng.choice(kinds)()


def _over(rng: Random, usage: Usage, claim: Claim) -> Usage:
    name = rng.choice(USED)
    return replace(usage, **{name: getattr(claim, name) + rng.choice((1, 10**12))})


def _no_amount(rng: Random, usage: Usage) -> Usage:
    return replace(usage, **{rng.choice(USED): rng.choice(NO_AMOUNTS)})  # type: ignore[arg-type]


def larger_model(claim: Claim) -> Measured:
    """A model that is not the one that was reserved."""
    return Measured(params=claim.params + 1, forward_flops=claim.forward_flops)
