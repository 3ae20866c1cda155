"""What an evaluation found, and what noise leaves of it: improvements, and reports that were false."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import rfc8785
from scipy.special import stdtrit

from safety.improvement import Mode


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One model's scores, by the evaluator.

    Attributes:
        seed: of its training.
        score: mean of the domains' scores, in [0, 1].
        domains: score per domain, in [0, 1].
        errors: standard error of each domain's score, since the samples are finite.
    """

    seed: int
    score: float
    domains: Mapping[str, float]
    errors: Mapping[str, float]

    @property
    def error(self) -> float:
        """Standard error of the score: domains share no samples, so that their errors are independent."""
        return math.sqrt(sum(error**2 for error in self.errors.values())) / len(self.errors)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What a promotion rests on.

    Attributes:
        config: the candidate's configuration.
        weights: SHA-256 of the file that was evaluated.
        task: SHA-256 of the data.
        sealed: whether it was scored on samples that no search has seen; else on the hold-out.
        train_flops: FLOPs of one training of it, by arithmetic.
        measurements: first that of the weights in the file, then one for each further training.
    """

    config: Mapping[str, bool | int | float | str | None]
    weights: str
    task: str
    sealed: bool
    train_flops: int
    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        """Refuse what proves nothing."""
        if not self.measurements:
            raise ValueError("measurements: none, expected one or more")
        for found in self.measurements:
            if not all(map(math.isfinite, (found.score, *found.domains.values()))):
                raise ValueError(f"seed {found.seed}: a score is no number, expected finite ones")

    @property
    def own(self) -> Measurement:
        """Of the weights themselves."""
        return self.measurements[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of every training."""
        return tuple(found.seed for found in self.measurements)

    @property
    def scores(self) -> tuple[float, ...]:
        """Of every training."""
        return tuple(found.score for found in self.measurements)

    @property
    def score(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.scores)

    @property
    def domains(self) -> dict[str, float]:
        """Mean per domain over the seeds."""
        return {
            name: statistics.fmean(found.domains[name] for found in self.measurements)
            for name in self.own.domains
        }

    @property
    def spread(self) -> float | None:
        """Standard deviation of the score from seed to seed; None of a single one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def standard_error(self) -> float:
        """Of the score: over seeds where there are several that differ, else since the samples are finite."""
        return self.spread / math.sqrt(len(self.scores)) if self.spread else self.own.error

    @property
    def canonical(self) -> bytes:
        """Canonical JSON (RFC 8785) of all of it; whole numbers as texts, which may be too large for it."""
        told = asdict(self) | {"train_flops": str(self.train_flops)}
        told["measurements"] = [asdict(found) | {"seed": str(found.seed)} for found in self.measurements]
        return rfc8785.dumps(told)

    @property
    def digest(self) -> str:
        """SHA-256 of it, to which an approval is bound."""
        return hashlib.sha256(self.canonical).hexdigest()


def read_evidence(canonical: bytes) -> Evidence:
    """Return the evidence whose canonical JSON this is; its digest is the same.

    Raises:
        ValueError: it is no evidence, in one line.
    """
    try:
        told = json.loads(canonical)
        found = [Measurement(**one | {"seed": int(one["seed"])}) for one in told["measurements"]]
        told |= {"train_flops": int(told["train_flops"]), "measurements": tuple(found)}
        evidence = Evidence(**told)
        is_same = evidence.canonical == canonical
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"evidence: {type(error).__name__}: {error}, expected what was written") from None
    if not is_same:
        raise ValueError("evidence: not in canonical form, expected what was written")
    return evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class Improvement:
    """How much better one candidate is than another, and how sure that is.

    Attributes:
        difference: of the scores; above zero the new one is better.
        standard_error: of the difference.
        degrees: of freedom of that error; infinity where it is known rather than estimated.
        at_least: lower bound of the difference.
        confidence: that it is no less.
    """

    difference: float
    standard_error: float
    degrees: float
    at_least: float
    confidence: float

    @property
    def is_believed(self) -> bool:
        """Whether noise alone would rarely show as much."""
        return self.at_least > 0

    @property
    def text(self) -> str:
        """For people."""
        word = "believed" if self.is_believed else "within noise"
        return (
            f"{self.difference:+.4f} (standard error {self.standard_error:.4f}), "
            f"with {self.confidence:.0%} confidence at least {self.at_least:+.4f}: {word}"
        )


def is_improvement(
    old: Evidence, new: Evidence, *, mode: Mode = "max", confidence: float = 0.95
) -> Improvement:
    """Test whether trainings of a configuration are better than the weights that stand, on the same samples.

    The old weights are what they are; how the new ones come out depends on the seed, which is the noise that
    counts: see Bouthillier et al., "Accounting for variance in machine learning benchmarks", 2021. So it is
    Student's one-sided t test of the new seeds' mean against the old weights' own score. Where no seeds
    differ, the noise of the finite samples stands in, as of two independent draws.

    Raises:
        ValueError: both weren't scored on the same samples.
    """
    if (old.task, old.sealed) != (new.task, new.sealed):
        raise ValueError(
            f"evidence on task {old.task:.12} (sealed: {old.sealed}) and on {new.task:.12} "
            f"(sealed: {new.sealed}), expected the same samples for both"
        )
    gained = new.score - old.own.score
    difference = gained if mode == "max" else -gained
    if new.spread:
        error, degrees = new.standard_error, float(len(new.scores) - 1)
        quantile = float(stdtrit(degrees, confidence))
    else:
        error, degrees = math.hypot(old.own.error, new.own.error), math.inf
        quantile = NormalDist().inv_cdf(confidence)
    return Improvement(
        difference=difference,
        standard_error=error,
        degrees=degrees,
        at_least=difference - quantile * error,
        confidence=confidence,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Discrepancy:
    """A number that was reported and isn't so.

    Attributes:
        name: "score", or a domain.
        reported, found: by the candidate, and by the evaluator of the same weights.
        allowed: difference that noise explains.
    """

    name: str
    reported: float
    found: float
    allowed: float

    @property
    def reason(self) -> str:
        """What to record as an incident."""
        return (
            f"{self.name}: reported {self.reported:.6g}, the evaluator found {self.found:.6g}; "
            f"noise explains {self.allowed:.3g}"
        )


def discrepancies(
    reported: float,
    evidence: Evidence,
    *,
    domains: Mapping[str, float] | None = None,
    selected_from: int = 1,
    confidence: float = 0.999,
) -> tuple[Discrepancy, ...]:
    """Return what was reported of the evaluated weights and differs from what they are by more than noise.

    Both numbers are of the same weights on as many samples each, drawn alike: no seed comes between them, and
    their difference has the standard error of one score times the root of two. A best of n candidates was
    lucky on the samples by which it was chosen: it may be reported higher by up to sqrt(2 ln n) standard
    errors of one score, the most that the best of n draws is expected to be above the mean (Boucheron, Lugosi
    and Massart, "Concentration inequalities", 2013, theorem 2.5); no luck lets it be reported lower.

    Args:
        reported: score that the search was told.
        evidence: the evaluator's.
        domains: scores per domain that the search was told; those that weren't are passed over.
        selected_from: candidates among which it was the best.
        confidence: that an honest number is none of these, each by itself.
    """
    own, told = evidence.own, domains or {}
    # no mapping: a domain may be named "score"
    compared = [("score", reported, own.score, own.error)]
    compared += [(n, told[n], own.domains[n], own.errors[n]) for n in own.domains if n in told]
    return tuple(_beyond_noise(compared, selected_from, confidence))


def _beyond_noise(
    compared: Sequence[tuple[str, float, float, float]], selected_from: int, confidence: float
) -> Iterator[Discrepancy]:
    noise = math.sqrt(2) * NormalDist().inv_cdf((1 + confidence) / 2)
    luck = math.sqrt(2 * math.log(selected_from))
    for name, reported, found, error in compared:
        allowed = error * (noise + luck if reported > found else noise)
        # written as "not <=" so that NaN never passes
        if not abs(reported - found) <= allowed:
            yield Discrepancy(name=name, reported=reported, found=found, allowed=allowed)
