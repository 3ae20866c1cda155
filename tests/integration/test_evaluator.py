"""The evaluator on a real Ray: a process of its own for each evaluation, under the cluster's governor."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from rsi_ray.errors import EvaluationError, SweepError
from rsi_ray.evaluation import Subject
from rsi_ray.evaluator import Reported, evaluate_in_fresh_process
from rsi_ray.fresh_process import in_fresh_process
from rsi_ray.screener import screen_in_fresh_process
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from rsi_ray.training import Training
from rsi_ray.training_job import TrainingJob
from rsi_ray.zero_cost import screen
from safety import ArtifactError, Ledger, SafetyError, artifact_digest, limits_from_dict
from safety.actor import connect
from search_spaces import MLPSpace
from tests.integration.conftest import ledger_url

pytestmark = pytest.mark.ray

CONFIG = {"activation": "relu", "norm": "none"}
BOUNDS = {"max_params": 10_000, "max_flops": 1e6, "max_memory": 1e9}


class Loading:
    """Loads the task, and leaves the number of the process that did in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self):
        (self.folder / str(os.getpid())).touch()
        return breast_cancer_task(BreastCancerOptions(holdout_size=64))


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    heads = breast_cancer_task(BreastCancerOptions(holdout_size=64)).heads
    (tmp_path / "processes").mkdir()
    return TrainingJob(
        space=MLPSpace(heads=heads, batch_size=8, depth=(1, 1), widths=(16,), dropouts=(0.0,)),
        load_task=Loading(tmp_path / "processes"),
        training=Training(epochs=1, steps_per_epoch=24, batch_size=8, learning_rate=1e-2, warmup_steps=2),
        seed=7,
        trial_seconds=60,
    )


def test_each_evaluation_is_a_process_of_its_own_whose_numbers_count(
    job: TrainingJob, tmp_path: Path, fresh_governor: None
):
    run, weights = job.begin(CONFIG), tmp_path / "own.safetensors"
    run.next_report()
    run.export(weights)
    governor = connect(ledger_url(tmp_path))
    governor.open_sweep("s", limits_from_dict({"bounds": BOUNDS}))
    subject = Subject(config=CONFIG, weights=weights, digest=artifact_digest(weights), seeds=1)
    lie = Reported(trial="s/t1", score=0.4)

    found = evaluate_in_fresh_process(governor, job, subject, lie, sweep="s")
    assert len(found.evidence.scores) == 2
    assert found.evidence.score > 0.7
    assert [one.reported for one in found.discrepancies] == [0.4]
    with pytest.raises(ArtifactError, match="expected the file of digest '0000"):
        evaluate_in_fresh_process(governor, job, replace(subject, digest="0" * 64), lie, sweep="s")

    processes = {path.name for path in (tmp_path / "processes").iterdir()}
    assert len(processes - {str(os.getpid())}) == 2
    ledger = Ledger(ledger_url(tmp_path))
    assert ledger.open_leases("s") == []
    assert [entry.rule for _, entry, _ in ledger.audit() if entry.kind == "incident"] == [
        "discrepancy",
        "evaluation",
    ]
    ledger.close()


def test_candidates_are_screened_in_a_process_of_their_own_that_pays_for_it(
    job: TrainingJob, tmp_path: Path, fresh_governor: None
):
    governor = connect(ledger_url(tmp_path))
    governor.open_sweep("s", limits_from_dict({"bounds": BOUNDS}))
    configs = [CONFIG, {**CONFIG, "activation": "gelu"}, {**CONFIG, "norm": "layernorm"}]

    found = screen_in_fresh_process(governor, job, configs, best=2, proxies=("synflow", "naswot"), sweep="s")
    assert found == screen(job, configs, best=2, seed=job.seed, proxies=("synflow", "naswot"))

    ledger = Ledger(ledger_url(tmp_path))
    (settled,) = [entry for _, entry, _ in ledger.audit() if entry.kind == "settle"]
    assert settled.key.startswith("s/screening-")
    assert ledger.open_leases("s") == []
    ledger.close()


def test_what_the_limits_do_not_admit_is_not_screened(job: TrainingJob, tmp_path: Path, fresh_governor: None):
    governor = connect(ledger_url(tmp_path))
    governor.open_sweep("s", limits_from_dict({"bounds": {**BOUNDS, "max_params": 1}}))
    with pytest.raises(SafetyError, match=r"s/screening-.*parameters"):
        screen_in_fresh_process(governor, job, [CONFIG], best=1, proxies=("synflow",), sweep="s")


def fails(_keeper_of: object, error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SweepError("no GPU"), "^no GPU$"),
        (EvaluationError("no"), "^no$"),
        (KeyError("x"), "^it failed: KeyError: 'x'$"),
    ],
)
def test_what_is_no_fault_of_a_candidate_comes_out_as_it_is(shared_ray: None, error: Exception, told: str):
    kind = SweepError if isinstance(error, SweepError) else EvaluationError
    with pytest.raises(kind, match=told):
        in_fresh_process(fails, error, what="it", cpus=0, gpus=0.0)
