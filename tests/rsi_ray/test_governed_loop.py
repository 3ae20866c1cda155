"""The loop's ports: what was done is read back, what nobody attested is done again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

from rsi_ray.champion import ChampionStore
from rsi_ray.evidence import Evidence, Measurement
from rsi_ray.governed_loop import GovernedLoop, standing_of
from rsi_ray.judged import Judged, write_judged
from rsi_ray.loop import Found, Standing
from safety import Allow, artifact_digest, limits_from_dict
from tests.rsi_ray.test_self_modification import measured

BOUNDS = {"max_params": 10_000, "max_flops": 1e6, "max_memory": 1e9}


class Empty:
    """A ledger that knows no promotions."""

    def champions(self, lineage: str):
        return []


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


class Attesting:
    """A governor that knows some evaluations."""

    def __init__(self, *known):
        self.known, self.incidents = [one.evaluated.record for one in known], []

    def is_attested(self, sweep, record):
        return record in self.known

    def record_incident(self, sweep, key, rule, reason):
        self.incidents.append((sweep, key, rule, reason))


class Job:
    def digest(self):
        return "t"


def evaluated_again(tmp_path, governor):
    """What a resumed loop takes for its evaluation of a candidate, and what it does evaluate."""
    weights = tmp_path / "weights" / "abc.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"some")
    found = Found(number=4, config={}, reported=0.5, record={"trial_id": "abc"})
    forged = judged(0.9, artifact_digest(weights))
    write_judged(tmp_path / "evaluations" / "abc.json", forged)
    nothing = dict.fromkeys(("modifier", "store", "space", "proxies", "after_shutdown"))
    engine = SimpleNamespace(run="loop-1", sweep=SimpleNamespace(artifacts=None))
    loop = GovernedLoop(
        engine=engine, governor=governor, limits=limits_from_dict({"bounds": BOUNDS}), seeds=0, **nothing
    )
    loop._evaluate = lambda *_: judged(0.5, artifact_digest(weights))
    return loop._evaluated(Job(), found, weights).evidence.score


def judged(score, weights):
    one = Measurement(seed=0, score=score, domains={"a": score}, errors={"a": 0.01})
    evidence = Evidence(config={}, weights=weights, task="t", sealed=True, train_flops=1, measurements=(one,))
    return Judged(evidence=evidence, verdict=Allow(), discrepancy="")


def test_an_evaluation_on_disk_that_no_evaluator_made_is_an_incident_and_made_again(tmp_path):
    governor = Attesting()
    assert evaluated_again(tmp_path, governor) == 0.5
    (incident,) = governor.incidents
    assert incident[:3] == ("loop-1", "loop-1/abc", "evaluation")
    assert "no evaluator has said what is written of trial 4" in incident[3]


def test_an_evaluation_that_an_evaluator_made_is_not_made_again(tmp_path):
    digest = hashlib.sha256(b"some").hexdigest()
    governor = Attesting(judged(0.9, digest))
    assert evaluated_again(tmp_path, governor) == 0.9
    assert governor.incidents == []
