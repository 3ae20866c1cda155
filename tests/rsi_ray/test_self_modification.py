"""The engine that replaces the champion: asked, answered, decided by the ledger, and never otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rsi_ray.champion import ChampionStore
from rsi_ray.champion_version import Candidate, digest_of
from rsi_ray.champion_version import evidence_of as evidence_path
from rsi_ray.champion_weights import weights_of
from rsi_ray.description import describe
from rsi_ray.errors import ChampionError
from rsi_ray.evidence import Evidence, Measurement
from rsi_ray.loop import Answer
from rsi_ray.proposal import Domain, Proposal, Size, from_json
from rsi_ray.self_modification import SelfModificationEngine, evidence_of
from safety import Allow, Decision, Deny, Hold, Ledger, limits_from_dict
from safety.approval import Answer as Said
from safety.approval import Request, decide
from tests.rsi_ray.champions import SPACE, SPEC, candidate, open_lineage
from tests.safety.approvers import answer, identity
from tests.safety.fakes import kinds, limits

DEEPER = replace(SPEC, depth=2)


def measured(value: float, *scores: float, **changed: Any) -> Candidate:
    """A candidate with the evaluator's scores of its weights, then of further seeds."""
    given = candidate(value, **changed)
    assert isinstance(given.weights, bytes)
    found = [
        Measurement(seed=seed, score=score, domains={"reasoning": score}, errors={"reasoning": 0.001})
        for seed, score in enumerate(scores)
    ]
    evidence = Evidence(
        config=given.config, weights=digest_of(given.weights), task="t", sealed=True, train_flops=10**20,
        measurements=tuple(found),
    )  # fmt: skip
    return replace(given, evidence=evidence.canonical)


def deeper(**changed: Any) -> Candidate:
    config = {"depth": 2, "learning_rate": 0.003, "norm": "none"}
    given = {"spec": describe(DEEPER), "config": config, "params": 1234, **changed}
    return measured(1, 0.55, 0.56, 0.54, **given)


@dataclass
class Person:
    """Says what a test wants, and signs it."""

    says: Said | None = "approve"
    signer: str = "ann"
    seen: list[tuple[Request, Proposal]] = field(default_factory=list)

    def decide(self, request: Request, proposal: Proposal) -> Decision | None:
        self.seen.append((request, proposal))
        if self.says is None:
            return None
        return decide(request.digest, self.says, "ann", "seen", identity(self.signer))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    open_lineage(opened)
    yield opened
    opened.close()


@pytest.fixture
def store(ledger: Ledger, tmp_path: Path) -> ChampionStore:
    found = ChampionStore(tmp_path / "line", ledger)
    found.adopt_base(measured(0, 0.5, 0.5, inherits=False))
    return found


@pytest.fixture
def person() -> Person:
    return Person()


LIMITS = limits_from_dict(
    {
        "bounds": {
            "max_params": 1e9,
            "max_flops": 1e9,
            "max_memory": 1e9,
            "max_performance": {"reasoning": 0.95},
        }
    }
)


def engine_of(
    ledger: Ledger, store: ChampionStore, person: Person, sweep: str = "s"
) -> SelfModificationEngine:
    return SelfModificationEngine(
        store, ledger=ledger, approver=person, sweep=sweep, by="loop", limits=LIMITS, key="K"
    )


@pytest.fixture
def engine(ledger: Ledger, store: ChampionStore, person: Person) -> SelfModificationEngine:
    return engine_of(ledger, store, person)


def test_what_people_approve_becomes_the_current_model(
    engine: SelfModificationEngine, store: ChampionStore, person: Person
):
    assert engine.apply_modification(deeper())
    assert engine.verdict == Allow()
    ((request, _),) = person.seen
    assert store.champion() == store.find(request.act.subject)
    (change,) = engine.modification_history
    assert not isinstance(change, dict)
    assert (change.approvals, change.request) == (("ann",), request.digest)  # type: ignore[union-attr]
    assert change.performance_delta == pytest.approx(0.05)  # type: ignore[union-attr]


def test_people_are_shown_all_that_they_should_weigh_and_the_ledger_keeps_it(
    engine: SelfModificationEngine, store: ChampionStore, person: Person
):
    base = store.champion()
    assert engine.apply_modification(deeper())
    ((request, proposal),) = person.seen
    assert from_json(request.about) == proposal
    assert (proposal.lineage, proposal.generation, proposal.seeds) == ("line", 1, 3)
    assert (proposal.current, proposal.proposed) == (0.5, 0.55)
    assert proposal.improvement == pytest.approx(0.1)
    assert proposal.noise.endswith("believed")
    assert proposal.domains == {"reasoning": Domain(current=0.5, proposed=0.55, ceiling=0.95)}
    assert proposal.difference == {"depth": (1, 2), "norm": (None, "none")}
    assert (proposal.before, proposal.after) == (
        Size(params=2, train_flops=10**20),
        Size(params=1234, train_flops=2 * 10**20),
    )
    assert proposal.ancestors == (base.name,)
    assert (proposal.held, proposal.incident, proposal.reported) == ("", "", None)


@pytest.mark.parametrize(("says", "verdict"), [("reject", Deny), (None, Hold)])
def test_no_and_no_answer_replace_nothing(
    engine: SelfModificationEngine,
    store: ChampionStore,
    ledger: Ledger,
    person: Person,
    says: Said | None,
    verdict: type,
):
    person.says, before = says, store.champion()
    assert not engine.apply_modification(deeper())
    assert isinstance(engine.verdict, verdict)
    assert (store.champion(), engine.modification_history) == (before, [])
    assert "promote" not in kinds(ledger)


def test_a_yes_that_another_one_signed_is_none(
    engine: SelfModificationEngine, store: ChampionStore, person: Person
):
    person.signer, before = "bob", store.champion()
    assert not engine.apply_modification(deeper())
    assert isinstance(engine.verdict, Hold)
    assert "ann" in engine.verdict.reason
    assert store.champion() == before


def test_where_nobody_answers_the_commands_that_do_are_named(
    engine: SelfModificationEngine, store: ChampionStore, person: Person
):
    person.says = None
    version = store.stage(deeper())
    said, text = engine.ask(version, engine.propose(store.champion(), version))
    assert said is Answer.NONE
    name = person.seen[0][0].name
    assert f"`rsi-ray approvals show {name}`" in text
    assert f"`rsi-ray approvals approve {name} --key K --reason WHY`" in text
    assert "`rsi-ray run --resume s`" in text


def test_what_was_rejected_is_not_asked_again(
    engine: SelfModificationEngine, store: ChampionStore, ledger: Ledger, person: Person
):
    person.says = None
    version = store.stage(deeper())
    proposal = engine.propose(store.champion(), version)
    engine.ask(version, proposal)
    answer(ledger, person.seen[0][0].digest, "ann", "reject")
    person.says = "approve"
    said, _ = engine.ask(version, proposal)
    assert said is Answer.REJECTED
    assert (len(person.seen), len(ledger.requests())) == (1, 1)


def test_whether_an_approval_is_needed_is_for_the_limits_to_say(
    engine: SelfModificationEngine, ledger: Ledger, tmp_path: Path, person: Person
):
    assert not engine.apply_modification(deeper(), require_approval=False)
    assert isinstance(engine.verdict, Hold)
    assert engine.verdict.rule == "require_approval"
    ledger.open_sweep("f", limits(require_approval=False), "free")
    store = ChampionStore(tmp_path / "free", ledger)
    store.adopt_base(measured(0, 0.5, inherits=False))
    free = engine_of(ledger, store, person, "f")
    assert free.apply_modification(measured(1, 0.52), require_approval=False)
    assert person.seen == []


def test_called_again_after_a_crash_it_goes_on_where_it_was(
    engine: SelfModificationEngine, store: ChampionStore, ledger: Ledger, person: Person
):
    pointer = (store.folder / "current.json").read_bytes()
    assert engine.apply_modification(deeper())
    (store.folder / "current.json").write_bytes(pointer)
    again = engine_of(ledger, store, person)
    assert again.apply_modification(deeper())
    assert (len(person.seen), len(ledger.champions("line"))) == (1, 1)
    assert (store.folder / "current.json").read_bytes() != pointer
    assert again.apply_modification(measured(2, 0.56))
    assert [one.generation for one in again.modification_history] == [1, 2]  # type: ignore[union-attr]


def test_an_approval_given_while_nobody_waited_is_used(
    engine: SelfModificationEngine, store: ChampionStore, ledger: Ledger, person: Person
):
    person.says = None
    assert not engine.apply_modification(deeper())
    answer(ledger, person.seen[0][0].digest, "ann")
    assert engine.apply_modification(deeper())
    assert len(person.seen) == 1
    assert store.champion().manifest.generation == 1


def test_a_version_that_was_never_measured_is_named(store: ChampionStore):
    version = store.stage(candidate(1))
    with pytest.raises(ChampionError, match=f"version {version.name}: evidence"):
        evidence_of(version)
    with pytest.raises(ChampionError, match="its evidence is missing"):
        evidence_of(replace(version, evidence=None))


def test_evidence_of_other_weights_is_none(store: ChampionStore):
    version, other = store.stage(measured(1.0, 0.55)), store.stage(measured(2.0, 0.9))
    assert evidence_of(version).own.score == 0.55
    evidence_path(version.path).write_bytes(other.evidence or b"")
    with pytest.raises(ChampionError, match="its evidence is of other weights"):
        evidence_of(store.find(version.artifact))


def test_the_current_model_computes_with_the_champions_weights(
    engine: SelfModificationEngine, store: ChampionStore
):
    torch.manual_seed(3)
    model = SPACE.build(DEEPER).eval()
    assert engine.apply_modification(deeper(weights=weights_of(model.state_dict())))
    inputs = {"text": torch.arange(6)[None], "sums": torch.arange(5)[None]}
    found = engine.current_model(inputs)
    for name, output in model(inputs).items():
        torch.testing.assert_close(found[name], output)
    assert not engine.current_model.training


@pytest.mark.parametrize(
    ("domain", "reason"), [("reasoning", "over the ceiling of 0.5"), ("planning", "not measured")]
)
def test_what_is_over_a_ceiling_or_was_not_measured_is_not_promoted_whoever_approves(
    ledger: Ledger, store: ChampionStore, person: Person, domain: str, reason: str
):
    bounds = {"max_params": 1e9, "max_flops": 1e9, "max_memory": 1e9, "max_performance": {domain: 0.5}}
    limits = limits_from_dict({"bounds": bounds})
    engine = SelfModificationEngine(
        store, ledger=ledger, approver=person, sweep="s", by="loop", limits=limits
    )
    assert not engine.apply_modification(deeper())
    assert isinstance(engine.verdict, Deny)
    assert reason in engine.verdict.reason
    assert store.champion().manifest.generation == 0
