"""One pure function per limit; `judge` combines them: Deny over Hold over Allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import SupportsFloat, TypeGuard

from safety.claim import USED, Claim, Measured, Usage, gflop, is_amount
from safety.limits import Limits
from safety.verdict import Allow, Deny, Hold, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One report of a trial, as it came; nothing in it is trusted.

    Attributes:
        score: the metric that the sweep optimizes.
        domains: score per capability domain.
        usage: what the trial says it has used.
        number: which report of its lease it is, as whoever hears it counts; 0 where nobody does.
    """

    score: object
    domains: Mapping[str, object] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    number: int = 0


def _ceiling(rule: str, value: float, ceiling: float, unit: str) -> Verdict:
    # written as "not <=" so that NaN never passes
    if not value <= ceiling:
        over = (value - ceiling) / ceiling if ceiling else math.inf
        found, allowed = _count(value), _count(ceiling)
        if found == allowed:  # they differ in the last digits alone
            found, allowed = repr(value), repr(ceiling)
        return Deny(rule, f"{found} {unit} is over the ceiling of {allowed}", {rule: over})
    return Allow()


def _count(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def max_params(limits: Limits, claim: Claim) -> Verdict:
    """Parameters of the candidate against `bounds.max_params`."""
    return _ceiling("max_params", claim.params, limits.bounds.max_params, "parameters")


def max_flops(limits: Limits, claim: Claim) -> Verdict:
    """FLOPs of one forward pass against `bounds.max_flops`."""
    return _ceiling("max_flops", claim.forward_flops, limits.bounds.max_flops, "FLOPs per forward pass")


def max_memory(limits: Limits, claim: Claim) -> Verdict:
    """Bytes held in training against `bounds.max_memory`."""
    return _ceiling("max_memory", claim.memory_bytes, limits.bounds.max_memory, "bytes of memory")


def max_train_flops(limits: Limits, claim: Claim) -> Verdict:
    """FLOPs of all training, that of the ancestors included, against `bounds.max_train_flops`."""
    ceiling = limits.bounds.max_train_flops
    if ceiling is None:
        return Allow()
    return _ceiling(
        "max_train_flops", claim.lineage_flops, ceiling, "FLOPs of training, ancestors' included,"
    )


ADMISSION: tuple[Callable[[Limits, Claim], Verdict], ...] = (
    max_params,
    max_flops,
    max_memory,
    max_train_flops,
)


def judge_claim(limits: Limits, claim: Claim) -> Verdict:
    """Every ceiling of one candidate; a Deny carries the excess over each of them."""
    return judge(_guarded(rule, limits, claim) for rule in ADMISSION)


def as_reserved(claim: Claim, measured: Measured) -> Verdict:
    """The model that was built against the one that was reserved: they must be the same."""
    wanted = Measured(params=claim.params, forward_flops=claim.forward_flops)
    if measured != wanted:
        flops = "uncounted" if measured.forward_flops is None else f"{measured.forward_flops:,}"
        return Deny(
            "as_reserved",
            f"built {measured.params:,} parameters and {flops} FLOPs, "
            f"reserved {wanted.params:,} and {wanted.forward_flops:,}",
        )
    return Allow()


def judge_built(limits: Limits, claim: Claim, measured: Measured) -> Verdict:
    """The models of a trial, counted when they first ran, against the ceilings and against its claim.

    FLOPs that can't be counted are those that were told; nobody told them where the claim is at the ceiling.
    """
    flops = claim.forward_flops if measured.forward_flops is None else measured.forward_flops
    built = replace(claim, params=measured.params, forward_flops=flops)
    return judge(
        [
            _guarded(max_params, limits, built),
            _guarded(max_flops, limits, built),
            _guarded(_measurable, limits, claim, measured),
            _guarded(_as_priced, claim, built),
        ]
    )


def _measurable(limits: Limits, claim: Claim, measured: Measured) -> Verdict:
    if measured.forward_flops is None and not claim.forward_flops < limits.bounds.max_flops:
        told = "tell forward_flops, under the ceiling, by cost="
        return Deny("unmeasured", f"its model can't be measured: {measured.reason}; {told}")
    return Allow()


def _as_priced(claim: Claim, built: Claim) -> Verdict:
    """No larger than what was priced; smaller does no harm."""
    for name in ("params", "forward_flops"):
        found, priced = getattr(built, name), getattr(claim, name)
        if not found <= priced:
            return Deny("as_priced", f"{name}: built {found:,}, priced {priced:,}")
    return Allow()


def finite_score(_limits: Limits, _claim: Claim, report: Report) -> Verdict:
    """Score and domains are finite real numbers: not NaN, missing, text, bool or beyond a float."""
    # not one mapping: a domain may be named "score"
    for name, value in (("score", report.score), *report.domains.items()):
        if not is_finite_number(value):
            return Deny("finite_score", f"{name} is {value!r:.60}, expected a finite number")
    return Allow()


def is_finite_number(value: object) -> TypeGuard[SupportsFloat]:
    """Whether a value can stand as a metric."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def within_reservation(_limits: Limits, claim: Claim, report: Report) -> Verdict:
    """FLOPs, time and number of reports against what was reserved."""
    usage = report.usage
    if not claim.counted(report.number) <= claim.reports:
        return Deny("within_reservation", f"reports: heard {report.number:,}, reserved {claim.reports:,}")
    for name in USED:
        used, reserved = getattr(usage, name), getattr(claim, name)
        if not is_amount(name, used):
            return Deny("within_reservation", f"{name}: told {used!r:.60}, expected a whole number from 0")
        if not used <= reserved:
            return Deny("within_reservation", f"{name}: used {used:,}, reserved {reserved:,}")
    return Allow()


def max_performance(limits: Limits, _claim: Claim, report: Report) -> Verdict:
    """Each domain's score against its capability ceiling."""
    ceilings = limits.bounds.max_performance
    return judge(
        _ceiling(f"max_performance.{domain}", float(score), ceilings[domain], f"in {domain}")
        for domain, score in report.domains.items()
        if domain in ceilings and is_finite_number(score)
    )


REPORT: tuple[Callable[[Limits, Claim, Report], Verdict], ...] = (
    finite_score,
    within_reservation,
    max_performance,
)
_OF_REPORT = frozenset(rule.__name__ for rule in REPORT)


def is_of_report(rule: str) -> bool:
    """Whether a denial by this rule is of a report."""
    return rule.partition(".")[0] in _OF_REPORT


def judge_report(limits: Limits, claim: Claim, report: Report) -> Verdict:
    """Every rule on one report, in order; the first refusal decides."""
    for rule in REPORT:
        verdict = _guarded(rule, limits, claim, report)
        if not isinstance(verdict, Allow):
            return verdict
    return Allow()


def judge_capability(limits: Limits, domains: Mapping[str, object]) -> Verdict:
    """An evaluator's scores of a champion to be against every ceiling: what is named must be measured."""
    ceilings = limits.bounds.max_performance
    return judge(_guarded(_capability, ceiling, domain, domains) for domain, ceiling in ceilings.items())


def _capability(ceiling: float, domain: str, domains: Mapping[str, object]) -> Verdict:
    rule, score = f"max_performance.{domain}", domains.get(domain)
    if not is_finite_number(score):
        told = "not measured" if domain not in domains else f"{score!r:.60}"
        return Deny(rule, f"{domain} has a ceiling of {_count(ceiling)} and is {told}")
    return _ceiling(rule, float(score), ceiling, f"in {domain}")


def judge_trained(limits: Limits, train_gflop: int | None) -> Verdict:
    """GFLOP of all training of a champion to be, its ancestors' included; what nobody told is refused."""
    ceiling, rule = limits.bounds.max_train_flops, "max_train_flops"
    if ceiling is None:
        return Allow()
    if train_gflop is None:
        return Deny(
            rule, "expected the champion's FLOPs of training, which have a ceiling, and nobody told them"
        )
    # both rounded up: equal is allowed
    return _ceiling(rule, train_gflop, gflop(ceiling), "GFLOP of training, ancestors' included,")


def judge(verdicts: Iterable[Verdict]) -> Verdict:
    """Combine verdicts: Deny over Hold over Allow. Excesses of all denials are kept."""
    found = list(verdicts)
    denials = [verdict for verdict in found if isinstance(verdict, Deny)]
    if denials:
        excess = {name: over for denial in denials for name, over in denial.excess.items()}
        return Deny(denials[0].rule, "; ".join(denial.reason for denial in denials), excess)
    return next((verdict for verdict in found if isinstance(verdict, Hold)), Allow())


def _guarded(rule: Callable[..., Verdict], *arguments: object) -> Verdict:
    """A rule that raises denies."""
    try:
        return rule(*arguments)
    except Exception as error:
        name = getattr(rule, "__name__", "rule")
        return Deny(name, f"the rule raised {type(error).__name__}: {error}")
