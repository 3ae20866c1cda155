"""Evaluations as they are written down: read back after a crash, and of other weights not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rsi_ray.evidence import Evidence, Measurement
from rsi_ray.judged import Judged, read_judged, write_judged
from safety import Allow, Deny

DIGEST = "d" * 64


def evidence(weights: str = DIGEST) -> Evidence:
    found = Measurement(seed=2**62, score=0.1 + 0.2, domains={"a": 0.3}, errors={"a": 0.01})
    return Evidence(
        config={"depth": 1}, weights=weights, task="t", sealed=True, train_flops=10**25, measurements=(found,)
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evaluations" / "abc.json"


def test_an_evaluation_is_read_back_as_it_was_written(path: Path):
    judged = Judged(evidence=evidence(), verdict=Allow(), discrepancy="score: reported 1")
    write_judged(path, judged)
    found = read_judged(path, DIGEST)
    assert found == judged
    assert found.evaluated == judged.evaluated


def test_a_denial_stays_one_without_what_only_a_sampler_needs(path: Path):
    denied = Deny("max_performance", "a is over", {"a": 0.25})
    write_judged(path, Judged(evidence=evidence(), verdict=denied, discrepancy=""))
    found = read_judged(path, DIGEST)
    assert found is not None
    assert found.verdict == Deny("max_performance", "a is over")


def test_an_evaluation_of_other_weights_is_none(path: Path):
    write_judged(path, Judged(evidence=evidence("e" * 64), verdict=Allow(), discrepancy=""))
    assert read_judged(path, DIGEST) is None


def test_where_nothing_was_written_there_is_none(path: Path):
    assert read_judged(path, DIGEST) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told | {"evidence": "{}"},
        lambda told: told | {"evidence": told["evidence"].replace("0.3", "0.4 ")},
        lambda told: told | {"evidence": 1},
        lambda told: told | {"denied": "nonsense"},
        lambda told: told | {"denied": "[]"},
        lambda told: told | {"denied": "null"},
        lambda told: {name: value for name, value in told.items() if name != "discrepancy"},
        lambda told: [told],
    ],
)
def test_what_is_no_evaluation_is_made_again(path: Path, change):
    write_judged(path, Judged(evidence=evidence(), verdict=Allow(), discrepancy=""))
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert read_judged(path, DIGEST) is None


def test_half_a_file_is_none(path: Path):
    write_judged(path, Judged(evidence=evidence(), verdict=Allow(), discrepancy=""))
    path.write_bytes(path.read_bytes()[:50])
    assert read_judged(path, DIGEST) is None


def test_whatever_of_it_is_changed_is_another_evaluation():
    judged = Judged(evidence=evidence(), verdict=Deny("max_performance", "a is over"), discrepancy="score")
    changed = (
        replace(judged, verdict=Allow()),
        replace(judged, discrepancy=""),
        replace(judged, evidence=replace(evidence(), sealed=False)),
    )
    assert len({one.evaluated.record for one in (judged, *changed)}) == 4
    told = judged.evaluated
    assert (told.weights, told.evidence, told.score) == (DIGEST, evidence().digest, 0.1 + 0.2)
