"""Evaluation on the sealed part: of a file of weights, and of the same configuration trained again."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rsi_ray.errors import EvaluationError
from rsi_ray.evaluation import (
    Subject,
    evaluate_seeds,
    evaluate_weights,
    evaluation_claim,
    evidence_of,
    measurements,
)
from rsi_ray.heritage import Parent
from rsi_ray.scoring import scored
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from rsi_ray.train import train
from rsi_ray.training import Training
from rsi_ray.training_job import TrainingJob, candidate_seed
from safety import ArtifactError, artifact_digest
from search_spaces import MLPSpace

TASK = breast_cancer_task(BreastCancerOptions(holdout_size=64))
TRAINING = Training(epochs=2, steps_per_epoch=6, batch_size=8, warmup_steps=2)
SPACE = MLPSpace(heads=TASK.heads, batch_size=8, depth=(1, 1), widths=(16, 32), dropouts=(0.0,))
CONFIG = {"activation": "relu", "norm": "none", "width_0": 16}
JOB = TrainingJob(space=SPACE, load_task=lambda: TASK, training=TRAINING, seed=7, trial_seconds=60)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A candidate's last report, and its weights."""
    run, path = JOB.begin(CONFIG), tmp_path_factory.mktemp("weights") / "own.safetensors"
    report = [run.next_report() for _ in range(TRAINING.epochs)][-1]
    run.export(path)
    return report, path


def subject(path, **changes):
    return Subject(**{"config": CONFIG, "weights": path, "digest": artifact_digest(path), **changes})


@dataclass
class Watched:
    """The task, and which of its parts were asked for."""

    asked: list
    without_sealed: bool = False

    def __getattr__(self, name):
        if name == "sealed" and self.without_sealed:
            raise AttributeError(name)
        self.asked.append(name)
        return getattr(TASK, name)


def watching(**options):
    task = Watched([], **options)
    return task, replace(JOB, load_task=lambda: task)


def test_weights_are_scored_on_the_sealed_part_and_on_nothing_else(trained):
    _, path = trained
    task, job = watching()
    found = evaluate_weights(job, CONFIG, path, digest=artifact_digest(path))
    assert "sealed" in task.asked
    assert not {"holdout", "batch"} & {*task.asked}
    trainer = JOB.trainer(CONFIG)
    assert len([*train(trainer, TRAINING)]) == 2
    own = scored(trainer.model, TASK.sealed(), JOB.device)["breast_cancer"]
    assert (found.score, found.errors) == (own.score, {"breast_cancer": own.error})


def test_training_and_search_never_ask_for_the_sealed_part():
    task, job = watching()
    run = job.begin(CONFIG)
    run.next_report()
    assert "holdout" in task.asked
    assert "sealed" not in task.asked


def test_a_task_without_a_sealed_part_is_scored_on_its_holdout_and_the_evidence_says_so(trained):
    report, path = trained
    _, job = watching(without_sealed=True)
    found = [*measurements(job, subject(path, seeds=0))]
    assert found[0].score == report["score"]
    assert not evidence_of(job, subject(path), found).sealed
    assert evidence_of(JOB, subject(path), found).sealed


def test_further_seeds_train_the_same_configuration_with_other_weights_and_batches(trained):
    _, path = trained
    found = [*measurements(JOB, subject(path, seeds=2))]
    assert [one.seed for one in found] == [candidate_seed(seed, CONFIG) for seed in (7, 8, 9)]
    assert len({one.score for one in found}) > 1
    again = [*evaluate_seeds(JOB, CONFIG, [8, 9])]
    assert again == found[1:]


def test_further_seeds_start_from_the_weights_of_the_parent(trained):
    _, path = trained
    spec = JOB.candidate(CONFIG).spec
    parent = Parent(weights=path, artifact=artifact_digest(path), config=CONFIG, spec=spec, train_flops=1)
    still = replace(JOB, training=replace(TRAINING, learning_rate=1e-30), parent=parent)
    found = [*evaluate_seeds(still, CONFIG, [8, 9])]
    own = evaluate_weights(JOB, CONFIG, path, digest=artifact_digest(path))
    assert [one.score for one in found] == [own.score] * 2
    assert [one.seed for one in found] == [candidate_seed(seed, CONFIG) for seed in (8, 9)]


def test_the_price_is_every_further_training_and_every_evaluation(trained):
    _, path = trained
    one, claim = JOB.price(CONFIG), evaluation_claim(JOB, subject(path, seeds=2))
    assert claim.train_flops == 2 * one.train_flops + 3 * 64 * one.forward_flops
    assert (claim.reports, claim.wall_ms, claim.params) == (3, 3 * one.wall_ms, one.params)


def test_an_evaluation_is_under_a_ceiling_of_training_under_which_its_candidate_is(trained):
    _, path = trained
    one, claim = JOB.price(CONFIG), evaluation_claim(JOB, subject(path, seeds=2))
    assert claim.lineage_flops <= one.lineage_flops < claim.train_flops


def test_what_is_begun_is_never_charged_less_than_it_computes(trained):
    _, path = trained
    one, claim = JOB.price(CONFIG), evaluation_claim(JOB, subject(path, seeds=3))
    for reports in range(1, 5):
        computed = (reports - 1) * one.train_flops + reports * 64 * one.forward_flops
        assert claim.used(reports=reports, elapsed_ms=0).train_flops >= computed


def test_weights_of_another_configuration_are_refused(trained):
    _, path = trained
    with pytest.raises(ArtifactError, match=r"linear.bias: \(16,\) of float32, expected \(32,\)"):
        evaluate_weights(JOB, {**CONFIG, "width_0": 32}, path, digest=artifact_digest(path))


def test_weights_that_answer_no_numbers_have_no_score(trained, tmp_path):
    _, path = trained
    spoilt = {name: torch.full_like(tensor, math.nan) for name, tensor in load_file(path).items()}
    save_file(spoilt, tmp_path / "spoilt")
    digest = hashlib.sha256((tmp_path / "spoilt").read_bytes()).hexdigest()
    with pytest.raises(EvaluationError, match="expected finite numbers"):
        evaluate_weights(JOB, CONFIG, tmp_path / "spoilt", digest=digest)


def test_a_sealed_part_that_is_larger_than_was_priced_is_refused(trained):
    _, path = trained
    task, job = watching()
    task.sealed = lambda: TASK.batch(np.random.default_rng(0), 65)
    with pytest.raises(
        EvaluationError, match=r"^sealed part: breast_cancer: samples of shape .65, 30., priced were 64"
    ):
        evaluate_weights(job, CONFIG, path, digest=artifact_digest(path))
