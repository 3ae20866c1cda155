"""Evaluations as they are written down: read back after a crash, and of other weights not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsi_ray.champion import ChampionStore
from rsi_ray.evidence import Evidence, Measurement
from rsi_ray.governed_loop import GovernedLoop, Judged, _read, _write, standing_of
from rsi_ray.loop import Standing
from safety import Allow, Deny
from tests.rsi_ray.test_self_modification import measured

DIGEST = "d" * 64


class Empty:
    """A ledger that knows no promotions."""

    def champions(self, lineage: str):
        return []


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
    _write(path, judged)
    assert _read(path, DIGEST) == judged


def test_a_denial_stays_one_without_what_only_a_sampler_needs(path: Path):
    denied = Deny("max_performance", "a is over", {"a": 0.25})
    _write(path, Judged(evidence=evidence(), verdict=denied, discrepancy=""))
    found = _read(path, DIGEST)
    assert found is not None
    assert found.verdict == Deny("max_performance", "a is over")


def test_an_evaluation_of_other_weights_is_none(path: Path):
    _write(path, Judged(evidence=evidence("e" * 64), verdict=Allow(), discrepancy=""))
    assert _read(path, DIGEST) is None


def test_where_nothing_was_written_there_is_none(path: Path):
    assert _read(path, DIGEST) is None


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
    _write(path, Judged(evidence=evidence(), verdict=Allow(), discrepancy=""))
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert _read(path, DIGEST) is None


def test_half_a_file_is_none(path: Path):
    _write(path, Judged(evidence=evidence(), verdict=Allow(), discrepancy=""))
    path.write_bytes(path.read_bytes()[:50])
    assert _read(path, DIGEST) is None


def test_a_champions_score_is_its_own_weights_not_the_mean_over_seeds(tmp_path: Path):
    store = ChampionStore(tmp_path / "line", Empty())
    version = store.adopt_base(measured(0, 0.5, 0.9, inherits=False))
    standing = standing_of(version)
    assert (standing.generation, standing.artifact, standing.score) == (0, version.artifact, 0.5)


class Begun:
    """An engine whose generation was begun, by a process that screened its candidates."""

    def has_begun(self, generation, parent):
        return True

    def search(self, generation, parent, first):
        return generation, list(first)


def test_a_generation_that_is_gone_on_with_begins_with_what_it_began_with(monkeypatch):
    monkeypatch.setattr(GovernedLoop, "_parent", lambda self: None)
    monkeypatch.setattr(GovernedLoop, "next_generation", lambda self: 3)
    standing = Standing(generation=2, artifact="a", score=0.5, config={})
    nothing = dict.fromkeys(("modifier", "store", "governor", "limits", "seeds", "space", "after_shutdown"))
    loop = GovernedLoop(engine=Begun(), proxies=["synflow"], **nothing)
    assert loop.search(standing) == (3, [])
