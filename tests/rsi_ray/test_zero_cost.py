"""Zero-cost proxies: what each is by its source, on the models of every space, and what it costs."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rsi_ray.placement import Resources
from rsi_ray.scoring import loss_of
from rsi_ray.tasks import (
    BreastCancerOptions,
    BuiltInOptions,
    DigitsOptions,
    breast_cancer_task,
    built_in_task,
    digits_task,
)
from rsi_ray.tasks.task import Batch
from rsi_ray.train import build
from rsi_ray.training import Training
from rsi_ray.training_job import TrainingJob
from rsi_ray.zero_cost import (
    DOUBLES_BYTES,
    PROXIES,
    by_rank,
    grad_norm,
    measured,
    naswot,
    proxies_flops,
    ranked,
    screen,
    screening_claim,
    synflow,
)
from search_spaces import ConvSpace, MLPSpace, RandomTrial, TransformerSpace
from tests.contracts.training_step import GROUPED

CPU = torch.device("cpu")
SIZE = 8
CONV, TOKENS, TABLE = (
    digits_task(DigitsOptions()),
    built_in_task(BuiltInOptions(code_bytes=100_000, problems=1_000, holdout_size=32)),
    breast_cancer_task(BreastCancerOptions()),
)
SPACES = {
    "conv": (CONV, ConvSpace(heads=CONV.heads, batch_size=SIZE, widths=(8, 16))),
    "transformer": (
        TOKENS,
        TransformerSpace(heads=TOKENS.heads, batch_size=SIZE, depth=(1, 2), widths=(32, 64)),
    ),
    "mlp": (TABLE, MLPSpace(heads=TABLE.heads, batch_size=SIZE, widths=(8, 16, 32))),
}


pytestmark = pytest.mark.usefixtures("one_thread")


class Small(nn.Module):
    """Two matrices around a rectifier, which a test fills."""

    def __init__(self, first, second, norm=None):
        super().__init__()
        self.first, self.norm, self.second = (
            nn.Linear(2, 2, bias=False),
            norm or nn.Identity(),
            nn.Linear(2, 1, bias=False),
        )
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor(first))
            self.second.weight.copy_(torch.tensor(second))

    def forward(self, inputs):
        return {name: self.second(torch.relu(self.norm(self.first(rows)))) for name, rows in inputs.items()}


def rows(*values, targets=None):
    inputs = np.array(values, dtype=np.float32)
    return {
        "d": Batch(
            inputs=inputs, targets=np.zeros((len(inputs), 1), np.float32) if targets is None else targets
        )
    }


def of(space, seed):
    task, space = SPACES[space]
    spec = space.suggest(RandomTrial(random.Random(seed)))
    return (
        build(space, spec, seed=0, device=CPU),
        task.batch(np.random.default_rng(0), SIZE),
        space.cost(spec),
    )


# --- each by its source


def test_synflow_is_the_flow_of_absolute_weights_through_every_layer():
    model = Small([[1.0, -2.0], [3.0, 4.0]], [[-1.0, 2.0]])
    # ones flow on as 3 and 7, and leave as 3 + 14; each of both layers lets through all of it
    assert synflow(model, rows([9.0, -9.0]), loss_of) == pytest.approx(math.log(2 * 17))


def test_a_norm_divides_the_flow_by_its_inputs_size_as_by_a_constant():
    normed = Small([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0]], nn.LayerNorm(2))
    # 3 and 7 flow on, of which the root of the mean square is that of 29
    expected = math.log(2 * 17 / math.sqrt(29))
    assert synflow(normed, rows([9.0, -9.0]), loss_of) == pytest.approx(expected)


def test_synflow_is_finite_in_the_deepest_of_gated_transformers():
    space = TransformerSpace(heads=TOKENS.heads, batch_size=SIZE)
    found = [space.suggest(RandomTrial(random.Random(seed))) for seed in range(200)]
    gated = max((spec for spec in found if spec.ffn_kind == "swiglu"), key=lambda spec: spec.depth)
    spec = replace(gated, depth=24)
    batches = TOKENS.batch(np.random.default_rng(0), 1)
    assert math.isfinite(synflow(build(space, spec, seed=0, device=CPU), batches, loss_of))


def test_synflow_leaves_the_model_as_it_was():
    model = Small([[1.0, -2.0], [3.0, 4.0]], [[-1.0, 2.0]], nn.LayerNorm(2))
    before, inputs = {k: v.clone() for k, v in model.state_dict().items()}, {"d": torch.ones(1, 2)}
    answer = model(inputs)["d"]
    synflow(model, rows([1.0, 1.0]), loss_of)
    assert model(inputs)["d"].equal(answer)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_naswot_is_the_log_determinant_of_the_agreements_of_codes():
    model = Small([[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]])
    batches = rows([1.0, 1.0], [1.0, -1.0], [-1.0, -1.0])
    # two units; the bits that pad them to a byte agree
    agreements = np.array([[8, 7, 6], [7, 8, 7], [6, 7, 8]]) + np.eye(3)
    assert naswot(model, batches, loss_of) == pytest.approx(np.linalg.slogdet(agreements)[1])


def test_naswot_is_larger_where_samples_activate_the_model_differently():
    model = Small([[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]])
    alike, different = rows([1.0, 1.0], [2.0, 2.0]), rows([1.0, 1.0], [-2.0, -2.0])
    assert naswot(model, different, loss_of) > naswot(model, alike, loss_of)


def test_grad_norm_is_the_sum_of_the_norms_of_the_gradients_of_each_matrix():
    model = Small([[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]])
    # output 3, error squared 9: gradient 6 * (1, 2) behind, 6 * ((1, 2), (1, 2)) before
    expected = 6 * math.sqrt(5) + 6 * math.sqrt(10)
    assert grad_norm(model, rows([1.0, 2.0]), loss_of) == pytest.approx(expected)
    assert all(parameter.grad is None for parameter in model.parameters())


# --- on every space


@pytest.mark.parametrize("space", SPACES)
def test_every_proxy_is_a_number_that_models_differ_in_and_that_comes_out_the_same_again(space):
    found = [measured(*of(space, seed)[:2], loss_of) for seed in range(3)]
    again = [measured(*of(space, seed)[:2], loss_of) for seed in range(3)]
    assert found == again
    for name in PROXIES:
        values = [one[name] for one in found]
        assert all(map(math.isfinite, values))
        assert len(set(values)) == 3


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("space", SPACES)
def test_no_proxy_computes_more_than_its_price(space, proxy):
    for seed in range(4):
        model, batches, cost = of(space, seed)
        # The counter knows no fused attention on a CPU.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=GROUPED) as counter:
            measured(model, batches, loss_of, [proxy])
        price = proxies_flops([proxy], cost.forward_flops, SIZE)
        assert 0.5 * price < counter.get_total_flops() <= price
        assert price <= 3 * SIZE * cost.forward_flops


# --- screening


def job_of(space="mlp"):
    task, space = SPACES[space]
    return TrainingJob(
        space=space, load_task=lambda: task, training=Training(batch_size=SIZE), seed=0, trial_seconds=60
    )


def configs_of(job, count):
    trials = [RandomTrial(random.Random(seed)) for seed in range(count)]
    for trial in trials:
        job.suggest(trial)
    return [trial.params for trial in trials]


def test_screening_returns_the_best_by_the_mean_of_their_ranks():
    job = job_of()
    configs = configs_of(job, 6)
    every = screen(job, configs, best=6, seed=3)
    assert [one.rank for one in every] == sorted(one.rank for one in every)
    assert screen(job, configs, best=2, seed=3) == every[:2]
    assert sorted(one.index for one in every) == list(range(6))
    assert screen(job, configs, best=6, seed=4) != every


def test_a_candidate_is_screened_on_the_batch_and_the_weights_of_the_seed():
    job = job_of()
    (config,) = configs_of(job, 1)
    (found,) = screen(job, [config], best=1, seed=3)
    model = build(job.space, job.candidate(config).spec, seed=3, device=CPU)
    assert found.values == measured(model, TABLE.batch(np.random.default_rng(3), SIZE), loss_of)


def test_the_price_of_a_screening_is_the_sum_over_its_candidates_and_its_size_that_of_the_largest():
    job = job_of()
    configs = configs_of(job, 5)
    claims = [job.price(config) for config in configs]
    claim = screening_claim(job, configs)
    assert claim.train_flops == sum(one.forward_flops * (3 + SIZE + 3 * SIZE) for one in claims)
    assert screening_claim(job, configs, ["synflow"]).train_flops == 3 * sum(c.forward_flops for c in claims)
    assert claim.params == max(one.params for one in claims)
    assert claim.memory_bytes == max(one.memory_bytes + DOUBLES_BYTES * one.params for one in claims)
    spread = replace(job, resources=Resources(workers=4, strategy="fsdp2"))
    assert screening_claim(spread, configs) == claim  # one process has each of them whole


def test_a_process_that_screens_grows_by_no_more_than_was_claimed():
    subprocess.run([sys.executable, "-m", "tests.rsi_ray.claim_kept", "screening"], check=True, timeout=240)


def test_no_candidates_have_no_price():
    with pytest.raises(ValueError, match="configs: none, expected one candidate or more"):
        screening_claim(job_of(), [])


def test_ranks_begin_with_the_largest_and_equals_share_theirs():
    assert list(ranked([1.0, 3.0, 3.0, math.inf])) == [4.0, 2.5, 2.5, 1.0]


def test_no_number_is_worse_than_any():
    assert list(ranked([math.nan, -5.0, -1.0])) == [3.0, 2.0, 1.0]
    assert by_rank([{"a": math.nan}, {"a": -1e9}])[0].index == 1


def test_candidates_of_one_rank_stay_in_order():
    assert [one.index for one in by_rank([{"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 1.0}])] == [0, 1]


def test_dropout_changes_no_proxy():
    task, space = SPACES["mlp"]
    spec = replace(space.suggest(RandomTrial(random.Random(0))), dropout=0.3)
    model, batches = build(space, spec, seed=0, device=CPU), task.batch(np.random.default_rng(0), SIZE)
    still = build(space, replace(spec, dropout=0.0), seed=0, device=CPU)
    assert measured(model.train(), batches, loss_of) == measured(still, batches, loss_of)
