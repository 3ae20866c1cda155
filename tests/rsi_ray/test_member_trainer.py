"""A candidate of several members: its price, its checkpoints, and the one that is reported and kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from rsi_ray.evaluation import Subject, evaluate_weights, evaluation_claim, evidence_of
from rsi_ray.evidence import discrepancies
from rsi_ray.heritage import Parent
from rsi_ray.members import STACKED_BYTES, Members, member_seed
from rsi_ray.scoring import evaluate
from safety import artifact_digest
from search_spaces import Cost
from tests.rsi_ray.member_jobs import MEMBERS, MLP, TASK, job_of, trainers
from tests.rsi_ray.test_train import copied


@dataclass(frozen=True)
class Own:
    """Somebody's space, which says how much memory its training takes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(MLP, name)

    def cost(self, spec: Any) -> Cost:
        return replace(MLP.cost(spec), memory_bytes=5)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_claim_holds_the_training_and_the_memory_of_all_members_and_the_size_of_one() -> None:
    (single, config), (several, _) = job_of("mlp", members=Members()), job_of("mlp")
    one, all_of_them = single.price(config), several.price(config)
    assert all_of_them.memory_bytes == 6 * (one.memory_bytes + STACKED_BYTES * one.params)
    by_turns = replace(several, training=replace(several.training, members=replace(MEMBERS, stacked=False)))
    assert by_turns.price(config).memory_bytes == 6 * one.memory_bytes
    assert replace(all_of_them, memory_bytes=one.memory_bytes) == replace(
        one, train_flops=6 * one.train_flops, members=6
    )
    assert all_of_them.charges()["concurrent_params"] == 6 * one.params


def test_a_stack_of_somebody_elses_modules_claims_twice_the_memory() -> None:
    job, config = job_of("mlp")
    own = replace(job, space=Own())
    alone = replace(own, training=replace(own.training, members=replace(MEMBERS, stacked=False)))
    one = replace(own, training=replace(own.training, members=Members()))
    gradients = 6 * STACKED_BYTES * own.price(config).params
    assert [each.price(config).memory_bytes for each in (one, alone, own)] == [5, 30, 60 + gradients]


@pytest.mark.parametrize("stacked", [True, False])
def test_what_the_reports_have_computed_is_what_was_claimed(stacked: bool) -> None:
    job, config = job_of("mlp", members=replace(MEMBERS, stacked=stacked))
    for latency in (False, True):
        timed = replace(job, latency=latency)
        trainer = timed.trainer(config)
        reports = [trainer.run_epoch() for _ in range(2)]
        assert reports[-1].flops == timed.price(config).train_flops
        assert [report.latency_ms is not None for report in reports] == [False, latency]


def test_a_stack_computes_no_more_than_was_claimed() -> None:
    job, config = job_of("mlp", members=replace(MEMBERS, stacked=True))
    trainer = job.trainer(config)
    with FlopCounterMode(display=False) as counter:
        flops = trainer.run_epoch().flops
    assert flops // 2 < counter.get_total_flops() <= flops


@pytest.mark.parametrize("stacked", [True, False])
def test_a_state_saved_to_a_file_continues_with_all_members_bit_for_bit(
    tmp_path: Path, stacked: bool
) -> None:
    whole, first, second = (trainers("mlp", stacked=stacked) for _ in range(3))
    reports = [whole.run_epoch() for _ in range(2)]
    first.run_epoch()
    save_file(first.state(), tmp_path / "state.safetensors")
    second.load_state(load_file(tmp_path / "state.safetensors"))
    assert all(torch.equal(second.state()[name], one) for name, one in first.state().items())
    assert second.run_epoch() == reports[1]
    assert all(torch.equal(second.state()[name], one) for name, one in whole.state().items())


def test_a_state_of_a_stack_goes_on_one_after_the_other_and_the_other_way_round() -> None:
    for stacked in (True, False):
        here, there = trainers("mlp", stacked=stacked), trainers("mlp", stacked=not stacked)
        here.run_epoch()
        there.load_state(here.state())
        assert there.run_epoch().loss == pytest.approx(here.run_epoch().loss, abs=1e-5)


def test_a_stack_that_has_run_on_is_taken_back_to_a_state() -> None:
    trainer = trainers("mlp", stacked=True)
    trainer.run_epoch()
    state = copied(trainer.state())
    expected = trainer.run_epoch(), copied(trainer.state())
    trainer.load_state(state)
    found = trainer.run_epoch(), copied(trainer.state())
    assert found[0] == expected[0]
    assert all(torch.equal(found[1][name], one) for name, one in expected[1].items())


def test_a_state_of_other_members_is_refused() -> None:
    job, config = job_of("mlp", members=Members(seeds=2))
    state = job.trainer(config).state()
    with pytest.raises(ValueError, match="the saved state has 2 members, expected 6"):
        trainers("mlp", stacked=True).load_state(state)


def test_the_first_member_is_the_candidate_that_there_is_without_members() -> None:
    (single, config), (several, _) = job_of("mlp", members=Members()), job_of("mlp", members=Members(seeds=2))
    alone, members = single.trainer(config), replace(several).trainer(config)
    assert all(torch.equal(members.state()[f"0.{name}"], one) for name, one in alone.state().items())
    first, second = (member.seed for member in members._trainers)  # type: ignore[union-attr]
    assert second == member_seed(first, 1)


def test_the_reported_score_is_that_of_the_exported_weights_and_of_the_median_seed(tmp_path: Path) -> None:
    job, config = job_of("mlp")
    run, trainer = job.begin(config), job.trainer(config)
    for _ in range(2):
        told, report = run.next_report(), trainer.run_epoch()
    run.export(tmp_path / "own.safetensors")
    scores = [sum(evaluate(one.model, TASK, job.device).values()) for one in trainer._trainers]  # type: ignore[union-attr]
    assert told["score"] in (sorted(scores[:3])[1], sorted(scores[3:])[1])
    assert told["score"] == max(sorted(scores[:3])[1], sorted(scores[3:])[1]) == report.score
    assert told["highest_domains"] == {"breast_cancer": max(scores)}
    kept = load_file(tmp_path / "own.safetensors")
    assert all(torch.equal(kept[name], one) for name, one in trainer.model.state_dict().items())
    assert kept.keys() == trainer.model.state_dict().keys()


def test_the_evaluator_finds_what_was_reported(tmp_path: Path) -> None:
    job, config = job_of("mlp", steps_per_epoch=15)
    run, path = job.begin(config), tmp_path / "own.safetensors"
    told = [run.next_report() for _ in range(2)][-1]
    run.export(path)
    subject = Subject(config=config, weights=path, digest=artifact_digest(path), seeds=1)
    own = evaluate_weights(job, config, path, digest=subject.digest)
    assert math.isclose(float(str(told["score"])), own.score, abs_tol=0.2)
    evidence = evidence_of(job, subject, [own])
    assert discrepancies(float(str(told["score"])), evidence, selected_from=2) == ()
    assert evaluation_claim(job, subject).train_flops > job.price(config).train_flops


def test_every_member_begins_with_the_parents_weights_and_learns_by_itself(tmp_path: Path) -> None:
    job, config = job_of("mlp")
    run, path = job.begin(config), tmp_path / "parent.safetensors"
    run.next_report()
    run.export(path)
    spec = job.candidate(config).spec
    parent = Parent(weights=path, artifact=artifact_digest(path), config=config, spec=spec, train_flops=10**6)
    child = replace(job, parent=parent)
    trainer, weights = child.trainer(config), load_file(path)
    begun = copied(trainer.state())
    for name, tensor in weights.items():
        assert all(torch.equal(begun[f"{index}.model.{name}"], tensor) for index in range(6))
    assert child.price(config).ancestor_flops == 10**6
    trainer.run_epoch()
    name = "model.backbone.0.linear.weight"
    assert len({trainer.state()[f"{index}.{name}"].numpy().tobytes() for index in range(6)}) == 6
