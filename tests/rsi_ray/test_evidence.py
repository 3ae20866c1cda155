"""What noise leaves of an improvement and of a report: tested on scores whose noise is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rsi_ray.evidence import Evidence, Measurement, discrepancies, is_improvement, read_evidence


def measured(score, seed=0, *, error=0.02, domains=None):
    domains = domains or {"digits": score}
    return Measurement(seed=seed, score=score, domains=domains, errors=dict.fromkeys(domains, error))


def evidence(*scores, error=0.02, **changes):
    found = tuple(measured(score, seed, error=error) for seed, score in enumerate(scores))
    values = {"config": {"depth": 2}, "weights": "w", "task": "t", "sealed": True, "train_flops": 10**20}
    return Evidence(**{**values, "measurements": found, **changes})


# --- evidence


def test_a_mean_and_its_error_are_over_the_seeds():
    found = evidence(0.5, 0.6, 0.7)
    assert found.score == pytest.approx(0.6)
    assert found.spread == pytest.approx(0.1)
    assert found.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert found.domains == {"digits": pytest.approx(0.6)}


def test_a_single_seed_has_the_error_of_its_samples():
    assert (evidence(0.5).spread, evidence(0.5).standard_error) == (None, 0.02)


def test_the_errors_of_domains_add_up_as_independent_ones():
    assert measured(0.5, domains={"a": 0.4, "b": 0.6}).error == pytest.approx(0.02 / math.sqrt(2))


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"depth": 3}},
        {"weights": "v"},
        {"task": "u"},
        {"sealed": False},
        {"train_flops": 10**20 + 1},
        {"measurements": (measured(0.5, seed=2**62 + 1),)},
        {"measurements": (measured(0.5, seed=2**62, domains={"a": 0.5, "b": 0.5}),)},
    ],
)
def test_whatever_is_changed_in_evidence_changes_its_digest(changes):
    whole = evidence(measurements=(measured(0.5, seed=2**62),))
    assert replace(whole).digest == whole.digest
    assert replace(whole, **changes).digest != whole.digest


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_no_evidence(score):
    with pytest.raises(ValueError, match="seed 1: a score is no number"):
        evidence(0.5, score)


def test_evidence_that_was_written_is_read_again():
    written = evidence(0.5, 1.0, config={"depth": 2, "rate": 1e-3, "norm": "none", "tied": True})
    assert read_evidence(written.canonical) == written
    assert read_evidence(written.canonical).digest == written.digest


@pytest.mark.parametrize(
    "spoilt",
    [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, evidence(0.5).canonical.replace(b"0.5", b'"high"')],
)
def test_what_is_no_evidence_is_refused_in_one_line(spoilt):
    with pytest.raises(ValueError, match=r"^evidence: .*, expected what was written$"):
        read_evidence(spoilt)


def test_evidence_that_is_written_otherwise_is_refused():
    with pytest.raises(ValueError, match="not in canonical form"):
        read_evidence(evidence(0.5).canonical + b" ")


# --- improvements


def test_what_is_far_beyond_the_spread_of_seeds_is_believed_and_what_is_within_it_is_not():
    old = evidence(0.50, 0.7)
    assert is_improvement(old, evidence(0.54, 0.55, 0.56)).is_believed
    assert not is_improvement(old, evidence(0.49, 0.51, 0.53)).is_believed
    assert not is_improvement(old, evidence(0.40, 0.41, 0.42)).is_believed


def test_the_bound_is_that_of_student_over_the_new_seeds_alone():
    found = is_improvement(evidence(0.2, 0.9), evidence(0.5, 0.6, 0.7))
    assert found.difference == pytest.approx(0.4)
    assert found.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert found.degrees == 2
    assert found.at_least == pytest.approx(0.4 - 2.919986 * 0.1 / math.sqrt(3))


def test_less_is_an_improvement_where_less_is_better():
    old, new = evidence(0.6, 0.61), evidence(0.3, 0.31)
    assert is_improvement(old, new, mode="min").difference == pytest.approx(0.295)
    assert is_improvement(old, new, mode="min").is_believed
    assert not is_improvement(old, new).is_believed


def test_seeds_without_an_improvement_are_believed_as_rarely_as_was_asked_for():
    draws = np.random.default_rng(0).normal(0.7, 0.01, size=(2_000, 3))
    believed = [is_improvement(evidence(0.7), evidence(*new)).is_believed for new in draws]
    assert 0.03 < np.mean(believed) < 0.07


@pytest.mark.parametrize("scores", [(0.5,), (0.5, 0.5)])
def test_where_no_seeds_differ_the_samples_are_the_noise(scores):
    old = evidence(*scores)
    found = is_improvement(old, evidence(0.54))
    assert (found.standard_error, found.degrees) == (pytest.approx(0.02 * math.sqrt(2)), math.inf)
    assert not found.is_believed
    assert is_improvement(old, evidence(0.55)).is_believed


@pytest.mark.parametrize("changes", [{"task": "u"}, {"sealed": False}])
def test_scores_on_other_samples_are_not_compared(changes):
    with pytest.raises(ValueError, match="expected the same samples for both"):
        is_improvement(evidence(0.5), evidence(0.6, **changes))


# --- reports


def test_a_report_within_noise_is_no_discrepancy_and_one_beyond_it_is():
    found = evidence(0.5)  # allowed: 3.29 * sqrt(2) * 0.02 = 0.093
    assert discrepancies(0.59, found) == discrepancies(0.41, found) == ()
    assert [one.name for one in discrepancies(0.60, found)] == ["score"]
    (low,) = discrepancies(0.40, found)
    assert (low.reported, low.found) == (0.40, 0.5)
    assert low.reason == "score: reported 0.4, the evaluator found 0.5; noise explains 0.0931"


@pytest.mark.parametrize("reported", [math.nan, math.inf])
def test_a_report_that_is_no_number_is_a_discrepancy(reported):
    assert len(discrepancies(reported, evidence(0.5))) == 1


def test_the_best_of_many_may_have_been_lucky_upwards_alone():
    found = evidence(0.5)
    assert discrepancies(0.63, found)
    assert not discrepancies(0.63, found, selected_from=100)
    assert discrepancies(0.37, found, selected_from=100)


def test_a_report_is_held_against_the_weights_own_score_and_not_the_mean_over_seeds():
    assert not discrepancies(0.9, evidence(0.9, 0.1, 0.1))


def test_a_lie_about_one_domain_of_many_is_found_in_that_domain():
    domains = {"score": 0.9, "b": 0.5, "c": 0.5, "d": 0.5}
    found = evidence(measurements=(measured(0.6, domains=domains),))
    assert not discrepancies(0.6, found, domains=domains)
    (lie,) = discrepancies(0.6, found, domains={**domains, "score": 0.4})
    assert (lie.name, lie.reported, lie.found) == ("score", 0.4, 0.9)


def test_the_best_of_honest_reports_is_as_rarely_taken_for_a_lie_as_was_asked_for():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(1_000):
        true = rng.normal(0.8, 0.01, size=50)
        reported = rng.binomial(256, true) / 256
        best = int(reported.argmax())
        score = rng.binomial(256, true[best]) / 256
        found = evidence(score, error=math.sqrt(score * (1 - score) / 256))
        alarms += len(discrepancies(reported[best], found, selected_from=50))
    assert alarms <= 5
