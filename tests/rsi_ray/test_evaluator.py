"""The evaluator under its lease: its numbers decide, a false report is an incident, everything is paid."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from rsi_ray.errors import EvaluationError, GpuError, SweepError, TrainingError, WorkerLost
from rsi_ray.evaluation import Subject, evaluation_claim
from rsi_ray.evaluator import Reported, _evaluate_alone, evaluate_under_lease
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from rsi_ray.training import Training
from rsi_ray.training_job import TrainingJob
from safety import (
    Allow,
    ArtifactError,
    Governor,
    LeaseKeeper,
    Ledger,
    SafetyError,
    artifact_digest,
    limits_from_dict,
)
from search_spaces import MLPSpace

TASK = breast_cancer_task(BreastCancerOptions(holdout_size=64))
TRAINING = Training(epochs=2, steps_per_epoch=12, batch_size=8, learning_rate=1e-2, warmup_steps=2)
SPACE = MLPSpace(heads=TASK.heads, batch_size=8, depth=(1, 1), widths=(16,), dropouts=(0.0,))
CONFIG = {"activation": "relu", "norm": "none"}
JOB = TrainingJob(space=SPACE, load_task=lambda: TASK, training=TRAINING, seed=7, trial_seconds=60)
BOUNDS = {"max_params": 10_000, "max_flops": 1e6, "max_memory": 1e9}


class Idle:
    """A switch that nothing throws."""

    def arm(self, seconds):
        pass

    def disarm(self):
        pass

    def throw(self):
        raise AssertionError("the lease was lost")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A candidate's last score, and its weights."""
    run, path = JOB.begin(CONFIG), tmp_path_factory.mktemp("weights") / "own.safetensors"
    report = [run.next_report() for _ in range(TRAINING.epochs)][-1]
    run.export(path)
    return report["score"], path


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield ledger
    ledger.close()


@pytest.fixture
def evaluate(ledger, trained):
    """Evaluate in this process what reported this."""
    torch.set_num_threads(1)
    score, path = trained

    def run(reported=None, *, ceilings=None, budget=None, **changes):
        governor = Governor(ledger)
        bounds = {**BOUNDS, "max_performance": ceilings or {}}
        governor.open_sweep("s", limits_from_dict({"bounds": bounds, "sweep": budget or {}}))
        asked = {"config": CONFIG, "weights": path, "digest": artifact_digest(path), "seeds": 1, **changes}
        told = reported or Reported(trial="s/t1", score=score)
        keeper = LeaseKeeper(governor, Idle())
        return evaluate_under_lease(governor, keeper, JOB, Subject(**asked), told, sweep="s")

    return run


def incidents(ledger):
    rows = [entry for _, entry, _ in ledger.audit() if entry.kind == "incident"]
    return [(entry.key, entry.rule, json.loads(entry.detail)["reason"]) for entry in rows]


def test_an_honest_candidate_is_evaluated_with_every_seed_and_nothing_else_is_recorded(evaluate, ledger):
    found = evaluate()
    assert (found.verdict, found.discrepancies) == (Allow(), ())
    assert len(found.evidence.scores) == 2
    assert incidents(ledger) == []


def test_what_an_evaluator_says_is_in_the_ledger_whether_it_denies_or_not(evaluate, ledger):
    for found in (evaluate(), evaluate(ceilings={"danger": 0.6})):
        told = found.judged.evaluated
        assert ledger.is_attested("s", told.record)
        assert told.score == found.evidence.own.score


def test_what_was_computed_is_spent_and_nothing_stays_held(evaluate, ledger, trained):
    evaluate(seeds=1)
    budgets = {(b.scope, b.resource): b for b in ledger.budgets("s")}
    spent = budgets["cluster", "train_gflop"]
    claim = evaluation_claim(JOB, Subject(config=CONFIG, weights=trained[1], digest="", seeds=1))
    assert (spent.spent, spent.held) == (claim.charges()["train_gflop"], 0)
    assert ledger.open_leases("s") == []


def test_a_score_told_lower_than_it_is_to_pass_under_a_ceiling_is_an_incident_and_the_candidate_denied(
    evaluate, ledger
):
    lie = Reported(trial="s/t1", score=0.5, domains={"breast_cancer": 0.5})
    found = evaluate(lie, ceilings={"breast_cancer": 0.6})
    assert found.evidence.score > 0.8
    assert found.verdict.rule == "max_performance.breast_cancer"
    (low, _), (denied,) = (
        [one for one in incidents(ledger) if one[1] == rule]
        for rule in ("discrepancy", "max_performance.breast_cancer")
    )
    assert low[0] == denied[0] == "s/t1"
    assert "reported 0.5, the evaluator found 0.8" in low[2]
    assert "is over the ceiling of 0.6" in denied[2]


@pytest.mark.parametrize(("error", "held"), [(WorkerLost("worker 1 died"), 1), (TrainingError("no"), 0)])
def test_a_lease_under_which_a_worker_was_lost_is_left_to_be_reaped(
    evaluate, ledger, monkeypatch, error, held
):
    def scoring(*_):
        raise error
        yield

    monkeypatch.setattr("rsi_ray.evaluator._scoring", scoring)
    with pytest.raises(type(error)):
        evaluate()
    assert len(ledger.open_leases("s")) == held
    assert incidents(ledger) == []


@pytest.mark.parametrize(
    ("error", "told"), [(GpuError("no GPU"), SweepError), (TrainingError("no"), EvaluationError)]
)
def test_a_node_whose_gpu_torch_can_not_use_is_no_fault_of_a_candidate(ledger, monkeypatch, error, told):
    def evaluate_under_lease(*_, **__):
        raise error

    monkeypatch.setattr("rsi_ray.evaluator.evaluate_under_lease", evaluate_under_lease)
    with pytest.raises(told, match=f"^sweep s: the evaluator: {error}$"):
        _evaluate_alone(lambda _: None, ledger, sweep="s")


def test_a_candidate_over_a_ceiling_is_not_trained_again(evaluate):
    found = evaluate(ceilings={"breast_cancer": 0.6}, seeds=5)
    assert len(found.evidence.scores) == 1


def test_a_domain_that_the_limits_name_and_nobody_measured_is_denied(evaluate, ledger):
    found = evaluate(ceilings={"danger": 0.6})
    assert found.verdict.reason == "danger has a ceiling of 0.6 and is not measured"
    assert [rule for _, rule, _ in incidents(ledger)] == ["max_performance.danger"]


def test_a_score_told_higher_than_it_is_is_an_incident_that_leaves_the_evaluators_number(evaluate, ledger):
    found = evaluate(Reported(trial="s/t1", score=2.0))
    assert [one.name for one in found.discrepancies] == ["score"]
    assert found.verdict == Allow()
    assert found.evidence.score < 1
    assert [(key, rule) for key, rule, _ in incidents(ledger)] == [("s/t1", "discrepancy")]


@pytest.mark.parametrize("lie", ["link", "digest", "shape", "pickle", "nan"])
def test_weights_that_lie_are_an_incident_and_their_lease_is_settled(
    evaluate, ledger, trained, tmp_path, lie
):
    path = tmp_path / "lying.safetensors"
    weights = load_file(trained[1])
    if lie == "link":
        path.symlink_to(trained[1])
    elif lie == "pickle":
        torch.save(weights, path)
    else:
        changed = {
            "shape": torch.ones(3),
            "nan": torch.full_like(weights["readouts.to_breast_cancer.bias"], torch.nan),
        }
        last = {"readouts.to_breast_cancer.bias": changed[lie]} if lie in changed else {}
        save_file({**weights, **last}, path)
    digest = "0" * 64 if lie in ("digest", "link") else artifact_digest(path)
    with pytest.raises((ArtifactError, EvaluationError)) as refused:
        evaluate(weights=path, digest=digest)
    assert "\n" not in str(refused.value)
    assert [(key, rule, reason) for key, rule, reason in incidents(ledger)] == [
        ("s/t1", "evaluation", str(refused.value))
    ]
    assert ledger.open_leases("s") == []


def test_an_evaluation_that_no_budget_has_room_for_computes_nothing(evaluate, ledger, monkeypatch):
    monkeypatch.setattr(TrainingJob, "trainer", None)
    with pytest.raises(SafetyError, match="s/evaluation-"):
        evaluate(budget={"trials": 0})
    assert ledger.open_leases("s") == []


def test_a_further_seed_over_a_ceiling_ends_the_evaluation(evaluate, ledger, monkeypatch):
    low = replace(evaluate().evidence.own, score=0.1, domains={"breast_cancer": 0.1})
    high = replace(low, score=0.9, domains={"breast_cancer": 0.9})
    monkeypatch.setattr("rsi_ray.evaluator.measurements", lambda job, subject: iter([low, high, low]))
    told = Reported(trial="s/t2", score=0.1)
    config = {**CONFIG, "activation": "gelu"}
    found = evaluate(told, ceilings={"breast_cancer": 0.6}, seeds=2, config=config, digest="1" * 64)
    assert len(found.evidence.scores) == 2
    assert found.verdict.rule == "max_performance.breast_cancer"
    assert ledger.open_leases("s") == []
