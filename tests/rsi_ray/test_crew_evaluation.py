"""The evaluation of a candidate by two processes, without Ray: the same numbers as by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from rsi_ray.crew import Assignment, Crew
from rsi_ray.crew_evaluation import leading_under, measurements_together
from rsi_ray.errors import EvaluationError, WorkerLost
from rsi_ray.evaluation import Subject, evaluation_claim, measurements
from rsi_ray.training_job import candidate_seed
from safety import ArtifactError, Grant, artifact_digest
from tests.rsi_ray.crews import CONFIG, HOLDOUT, Processes, job
from tests.rsi_ray.test_crew import Renewing


@pytest.fixture
def subject(tmp_path):
    run, path = job(workers=1).begin(CONFIG), tmp_path / "own.safetensors"
    run.next_report()
    run.export(path)
    return Subject(config=CONFIG, weights=path, digest=artifact_digest(path), seeds=1)


@pytest.fixture
def evaluate(subject):
    launched = []

    def launch(assignment):
        assert all(one.ended_within(0) for one in launched)  # they had the same GPUs
        launched.append(Processes()(assignment))
        return launched[-1]

    def together(strategy="ddp", **changes):
        of, asked = job(strategy=strategy), replace(subject, **changes)
        grant = Grant(lease=1, fence=1, ttl_ms=15_000, claim=evaluation_claim(of, asked))
        assignment = Assignment(
            job=of, config=CONFIG, authority=Renewing(), grant=grant, placement=of.placement(CONFIG),
            sweep="s", trial="t",
        )  # fmt: skip
        led = leading_under(launch, assignment, host="127.0.0.1", elapsed_ms=lambda: 0)
        return [*measurements_together(of, asked, led)]

    together.launched = launched
    yield together
    for processes in launched:
        processes.kill()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_workers_find_what_one_does_of_the_weights_and_of_further_seeds(evaluate, subject, strategy):
    found, expected = evaluate(strategy), [*measurements(job(workers=1), subject)]
    assert [one.seed for one in found] == [candidate_seed(seed, CONFIG) for seed in (3, 4)]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.seed == theirs.seed
        assert ours.domains == pytest.approx(theirs.domains, abs=1e-6)
        assert ours.errors == pytest.approx(theirs.errors, abs=1e-6)
        assert ours.score == pytest.approx(theirs.score, abs=1e-6)


def test_weights_that_are_not_the_subjects_reach_no_worker(evaluate, subject, tmp_path):
    with pytest.raises(ArtifactError, match="expected the file of digest '0000"):
        evaluate(digest="0" * 64)
    other = tmp_path / "other.safetensors"
    save_file(
        {**load_file(subject.weights), "one more": next(iter(load_file(subject.weights).values()))}, other
    )
    with pytest.raises(ArtifactError, match=r"one more: .*, expected none"):
        evaluate(weights=other, digest=artifact_digest(other))
    assert evaluate.launched == []


def test_weights_that_answer_no_numbers_have_no_score(evaluate, subject, tmp_path):
    spoilt = tmp_path / "spoilt.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(subject.weights).items()}, spoilt)
    with pytest.raises(EvaluationError, match="expected finite numbers"):
        evaluate(weights=spoilt, digest=artifact_digest(spoilt))


def test_a_worker_that_dies_fails_the_evaluation_and_the_other_one_ends_with_it(evaluate, monkeypatch):
    measure = Crew.measure

    def dying(crew):
        evaluate.launched[-1].started[1].kill()
        return measure(crew)

    monkeypatch.setattr(Crew, "measure", dying)
    with pytest.raises(WorkerLost):
        evaluate()
    assert evaluate.launched[-1].ended_within(20)


def test_the_price_is_that_of_the_workers(subject):
    one, claim = job().price(CONFIG), evaluation_claim(job(), subject)
    rows = HOLDOUT + 1  # of 33 each of two evaluates 17
    assert claim.train_flops == one.train_flops + 2 * rows * one.forward_flops
    assert claim.memory_bytes == one.memory_bytes
