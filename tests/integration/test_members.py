"""A sweep whose candidates have several members, on a real Ray: one trial and one lease for all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rsi_ray import Members
from rsi_ray.evaluation import Subject, evaluate_weights, evidence_of
from rsi_ray.evidence import discrepancies
from safety import artifact_digest
from search_spaces import MLPSpace
from tests.integration.test_api import TASK, TRAINING, spent, sweep_in, trained

pytestmark = pytest.mark.ray

RATES = (1e-3, 3e-2)


def test_a_sweeps_table_tells_the_member_that_counts_and_the_evaluator_finds_its_score(
    tmp_path: Path, fresh_governor: None
):
    members = Members(learning_rates=RATES, seeds=3, stacked=True)
    training = replace(TRAINING, steps_per_epoch=12, members=members)
    space = MLPSpace(heads=TASK.heads, batch_size=8, depth=(1, 2), widths=(16,), dropouts=(0.0,))
    sweep = replace(sweep_in(tmp_path), space=space, training=training, trials=2)
    result = sweep.run()
    table, job = trained(result), sweep.job()
    assert len(table) == 2
    assert set(table["members/learning_rate"]) <= set(RATES)
    assert (table["members/lowest"] <= table["score"]).all()
    assert (table["score"] <= table["members/highest"]).all()

    assert spent(result) == 2
    assert spent(result, "train_gflop") == table["train_gflop"].sum()
    assert result.best is not None
    config, score = result.best["config"], result.best["score"]
    alone = replace(job, training=replace(training, members=Members()))
    assert result.best["claim"]["train_flops"] == 6 * alone.price(config).train_flops
    path = result.folder / "weights" / f"{result.best['trial_id']}.safetensors"
    subject = Subject(config=config, weights=path, digest=artifact_digest(path))
    own = evaluate_weights(job, config, path, digest=subject.digest)
    assert discrepancies(score, evidence_of(job, subject, [own]), selected_from=4) == ()
    assert load_file(path).keys() == alone.trainer(config).model.state_dict().keys()
