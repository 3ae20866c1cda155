"""The engine that replaces the champion: asked, answered, decided by the ledger, and never otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsi_ray.champion import ChampionStore
from rsi_ray.champion_version import Candidate
from rsi_ray.champion_weights import weights_of
from rsi_ray.description import describe
from rsi_ray.self_modification import Answer, Proposal, SelfModificationEngine
from safety import Allow, Deny, Hold, Ledger
from tests.rsi_ray.champions import SPACE, SPEC, candidate, grown, open_lineage
from tests.safety.approvers import answer
from tests.safety.fakes import kinds, limits

DEEPER = replace(SPEC, depth=2)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    open_lineage(opened)
    yield opened
    opened.close()


@dataclass
class Person:
    """Says what a test wants, and signs it where it is an answer."""

    ledger: Ledger
    says: Answer = "approve"
    signs: bool = True
    seen: list[Proposal] = field(default_factory=list)

    def ask(self, proposal: Proposal) -> Answer:
        self.seen.append(proposal)
        if self.says != "none" and self.signs:
            answer(self.ledger, proposal.request.digest, "ann", self.says)
        return self.says


def engine_of(ledger: Ledger, store: ChampionStore, person: Person) -> SelfModificationEngine:
    return SelfModificationEngine(store, ledger=ledger, approver=person, sweep="s", by="loop")


@pytest.fixture
def person(ledger: Ledger) -> Person:
    return Person(ledger)


@pytest.fixture
def store(ledger: Ledger, tmp_path: Path) -> ChampionStore:
    return grown(ledger, tmp_path, 0)


@pytest.fixture
def engine(ledger: Ledger, store: ChampionStore, person: Person) -> SelfModificationEngine:
    return engine_of(ledger, store, person)


def deeper(**changed: Any) -> Candidate:
    return candidate(1, spec=describe(DEEPER), params=1234, **changed)


def test_what_people_approve_becomes_the_current_model(
    engine: SelfModificationEngine, store: ChampionStore, person: Person
):
    assert engine.apply_modification(deeper(), old=0.5, new=0.55)
    assert engine.verdict == Allow()
    (proposal,) = person.seen
    assert proposal.improvement == pytest.approx(0.1)
    assert list(map(str, proposal.difference)) == ["depth: 1 -> 2"]
    assert (proposal.current.performance, proposal.proposed.performance) == (0.5, 0.55)
    assert proposal.request.about == (
        "score 0.5 -> 0.55 (+10.0%); depth: 1 -> 2; 1,234 parameters; "
        "2e+20 FLOPs of training with its ancestors'"
    )
    assert store.champion() == store.find(proposal.proposed.version.artifact)
    (change,) = engine.modification_history
    assert (change.approvals, change.request) == (("ann",), proposal.request.digest)
    assert change.performance_delta == pytest.approx(0.05)


@pytest.mark.parametrize(("says", "verdict"), [("reject", Deny), ("none", Hold)])
def test_no_and_no_answer_replace_nothing(
    engine: SelfModificationEngine,
    store: ChampionStore,
    ledger: Ledger,
    person: Person,
    says: Answer,
    verdict: type,
):
    person.says, before = says, store.champion()
    assert not engine.apply_modification(deeper(), old=0.5, new=0.55)
    assert isinstance(engine.verdict, verdict)
    assert (store.champion(), engine.modification_history) == (before, [])
    assert "promote" not in kinds(ledger)


def test_a_yes_that_nobody_signed_is_none(
    engine: SelfModificationEngine, store: ChampionStore, person: Person
):
    person.signs, before = False, store.champion()
    assert not engine.apply_modification(deeper(), old=0.5, new=0.55)
    assert isinstance(engine.verdict, Hold)
    assert store.champion() == before


def test_whether_an_approval_is_needed_is_for_the_limits_to_say(
    engine: SelfModificationEngine, ledger: Ledger, tmp_path: Path, person: Person
):
    assert not engine.apply_modification(deeper(), old=0.5, new=0.55, require_approval=False)
    assert engine.verdict == Hold("require_approval", engine.verdict.reason)
    ledger.open_sweep("f", limits(require_approval=False), "free")
    store = ChampionStore(tmp_path / "free", ledger)
    store.adopt_base(candidate(0, inherits=False))
    free = SelfModificationEngine(store, ledger=ledger, approver=person, sweep="f", by="loop")
    assert free.apply_modification(deeper(), old=0.5, new=0.52, require_approval=False)
    assert person.seen == []


def test_called_again_after_a_crash_it_goes_on_where_it_was(
    engine: SelfModificationEngine, store: ChampionStore, ledger: Ledger, person: Person
):
    pointer = (store.folder / "current.json").read_bytes()
    assert engine.apply_modification(deeper(), old=0.5, new=0.55)
    (store.folder / "current.json").write_bytes(pointer)
    again = engine_of(ledger, store, person)
    assert again.apply_modification(deeper(), old=0.5, new=0.55)
    assert (len(person.seen), len(ledger.champions("line"))) == (1, 1)
    assert (store.folder / "current.json").read_bytes() != pointer
    assert again.apply_modification(candidate(2), old=0.55, new=0.56)
    assert [one.generation for one in again.modification_history] == [1, 2]


def test_an_approval_given_while_nobody_waited_is_used(
    engine: SelfModificationEngine, store: ChampionStore, ledger: Ledger, person: Person
):
    person.says = "none"
    assert not engine.apply_modification(deeper(), old=0.5, new=0.55)
    answer(ledger, person.seen[0].request.digest, "ann")
    person.says, person.signs = "approve", False
    assert engine.apply_modification(deeper(), old=0.5, new=0.55)
    assert person.seen[0].request == person.seen[1].request
    assert store.champion().manifest.generation == 1


def test_the_current_model_computes_with_the_champions_weights(
    engine: SelfModificationEngine, store: ChampionStore
):
    torch.manual_seed(3)
    model = SPACE.build(DEEPER).eval()
    assert engine.apply_modification(deeper(weights=weights_of(model.state_dict())), old=0.5, new=0.55)
    inputs = {"text": torch.arange(6)[None], "sums": torch.arange(5)[None]}
    found = engine.current_model(inputs)
    for name, output in model(inputs).items():
        torch.testing.assert_close(found[name], output)
    assert not engine.current_model.training
