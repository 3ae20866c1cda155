"""Training one candidate: exact plans, reproducible scores, states that continue bit by bit."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rsi_ray.scoring import LATENCY_FORWARDS, evaluate, latency_ms
from rsi_ray.tasks.task import Batch, Task
from rsi_ray.train import Trainer, build, train
from rsi_ray.training import Training, flops_after, learning_rate_at, planned_flops
from search_spaces.cost import Cost
from search_spaces.transformer import Head, TransformerSpace, TransformerSpec

CPU = torch.device("cpu")
COST = Cost(params=1, forward_flops=7, train_step_flops=1_000, memory_bytes=1)
TRAINING = Training(epochs=3, steps_per_epoch=5, batch_size=8, learning_rate=1e-2, warmup_steps=3)
SPEC = TransformerSpec(
    depth=1,
    width=16,
    heads=2,
    kv_heads=1,
    ffn_width=16,
    ffn_kind="swiglu",
    norm="rmsnorm",
    position="learned",
    tied=True,
)


class Echo:
    """A task that is learned within a few steps: repeat each token, and say whether the last one is odd."""

    heads = (
        Head(name="echo", classes=16, length=6, dense=True),
        Head(name="odd", classes=2, length=4, dense=False),
    )
    holdout_size = 300
    digest = "echo"

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        echo, odd = rng.integers(16, size=(size, 6)), rng.integers(16, size=(size, 4))
        return {"echo": Batch(inputs=echo, targets=echo), "odd": Batch(inputs=odd, targets=odd[:, -1] % 2)}

    def holdout(self) -> dict[str, Batch]:
        return self.batch(np.random.default_rng(99), self.holdout_size)


SPACE = TransformerSpace(heads=Echo.heads, batch_size=8, vocab=16, head_sizes=(8,), widths=(16,))

# of one sample, by head
SHAPES = {"echo": (6,), "odd": (4,), "line": (3,)}


pytestmark = pytest.mark.usefixtures("one_thread")


def trainer_of(model: nn.Module, task: Task, training: Training, *, seed: int = 0, **options: Any) -> Trainer:
    return Trainer(model, task, training, cost=COST, shapes=SHAPES, seed=seed, device=CPU, **options)


def trainer(
    seed: int = 0, training: Training = TRAINING, task: Task | None = None, **options: Any
) -> Trainer:
    model = build(SPACE, SPEC, seed=seed, device=CPU)
    return trainer_of(model, task or Echo(), training, seed=seed, **options)


def fingerprint(seed: int) -> str:
    """Train to the end and digest every score, loss and weight; also called in other processes."""
    torch.set_num_threads(1)
    candidate = trainer(seed)
    digest = hashlib.sha256(repr([astuple(report) for report in train(candidate, TRAINING)]).encode())
    for tensor in candidate.state().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def test_two_runs_with_one_seed_agree_bit_for_bit() -> None:
    assert fingerprint(0) == fingerprint(0)


def test_another_seed_gives_another_run() -> None:
    assert fingerprint(0) != fingerprint(1)


def test_the_seed_decides_the_batches_and_not_the_first_weights_alone() -> None:
    model = build(SPACE, SPEC, seed=0, device=CPU)
    other = build(SPACE, SPEC, seed=0, device=CPU)
    losses = [
        trainer_of(m, Echo(), TRAINING, seed=seed).run_epoch().loss for seed, m in enumerate((model, other))
    ]
    assert losses[0] != losses[1]


def test_what_else_drew_random_numbers_before_changes_nothing() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    first = fingerprint(0)
    torch.rand(3)
    assert fingerprint(0) == first


def test_another_process_gets_the_same_scores_and_weights() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(fingerprint, (0,)) == fingerprint(0)


def test_training_raises_the_score_of_every_domain() -> None:
    candidate = trainer(training=Training(epochs=2, steps_per_epoch=40, batch_size=16, learning_rate=1e-2))
    before = evaluate(candidate.model, Echo(), CPU)
    report = [*train(candidate, Training(epochs=2, steps_per_epoch=40))][-1]
    assert all(report.domains[name] > before[name] + 0.2 for name in before)
    assert report.score == pytest.approx(sum(report.domains.values()) / 2)


def test_one_report_per_epoch_counts_epochs_flops_and_samples_exactly() -> None:
    reports = [(r.epoch, r.flops, r.samples) for r in train(trainer(), TRAINING)]
    epoch_flops = 5 * 1_000 + 300 * 7
    assert reports == [(n, n * epoch_flops, n * 5 * 8 * 2) for n in (1, 2, 3)]


def test_the_plan_is_what_the_last_report_has_computed() -> None:
    assert planned_flops(COST, TRAINING, 300) == [*train(trainer(), TRAINING)][-1].flops
    assert flops_after(0, COST, TRAINING, 300) == 0


def test_an_evaluation_computes_one_forward_pass_per_holdout_sample() -> None:
    model = build(SPACE, SPEC, seed=0, device=CPU)
    # The counter knows no fused attention on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        evaluate(model, Echo(), CPU)
    assert counter.get_total_flops() == Echo.holdout_size * SPACE.cost(SPEC).forward_flops


def test_a_state_saved_to_a_file_continues_bit_for_bit(tmp_path: Path) -> None:
    whole, first = trainer(), trainer()
    reports = [*train(whole, TRAINING)]
    first.run_epoch()
    save_file(first.state(), tmp_path / "state.safetensors")
    second = trainer(seed=0)
    second.load_state(load_file(tmp_path / "state.safetensors"))
    assert [*train(second, TRAINING)] == reports[1:]
    assert all(torch.equal(second.state()[name], tensor) for name, tensor in whole.state().items())


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def test_a_state_is_copied_by_who_continues_from_it() -> None:
    candidate, other = trainer(), trainer()
    candidate.run_epoch()
    kept = copied(candidate.state())
    other.load_state(candidate.state())
    other.run_epoch()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in candidate.state().items())


def test_the_state_of_an_untrained_candidate_starts_it_afresh() -> None:
    used, fresh = trainer(), trainer()
    start = fresh.state()
    used.run_epoch()
    used.load_state(start)
    assert used.run_epoch() == fresh.run_epoch()


def test_a_state_of_another_architecture_is_refused_and_changes_nothing() -> None:
    candidate = trainer()
    candidate.run_epoch()
    before = copied(candidate.state())
    with pytest.raises(ValueError, match="another architecture"):
        candidate.load_state({name: tensor[None] for name, tensor in before.items()})
    assert all(torch.equal(candidate.state()[name], tensor) for name, tensor in before.items())


class Constant(nn.Module):
    """Logits that are the same learned number everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.largest = 0
        self.modes: list[bool] = []

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        self.modes.append(self.training)
        self.largest = max(self.largest, *(len(tokens) for tokens in inputs.values()))
        shapes = {head.name: (6, 16) if head.dense else (2,) for head in Echo.heads}
        return {name: self.value * torch.ones(len(tokens), *shapes[name]) for name, tokens in inputs.items()}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_reported_and_scores_nothing(value: float) -> None:
    report = trainer_of(Constant(value), Echo(), TRAINING).run_epoch()
    assert math.isnan(report.loss)
    assert math.isnan(report.score)
    assert all(math.isnan(score) for score in report.domains.values())


def test_an_evaluation_goes_through_the_holdout_in_small_pieces() -> None:
    model = Constant(0.0)
    evaluate(model, Echo(), CPU)
    assert 0 < model.largest <= 128


def test_an_evaluation_scores_the_share_of_answers_exactly_right() -> None:
    holdout = Echo().holdout()
    scores = evaluate(Constant(0.0), Echo(), CPU)
    assert scores == {name: (batch.targets == 0).mean() for name, batch in holdout.items()}


def test_a_candidate_learns_in_training_mode_and_is_scored_in_evaluation_mode() -> None:
    model = Constant(0.0)
    candidate = trainer_of(model, Echo(), TRAINING)
    candidate.run_epoch()
    one_epoch = list(model.modes)
    candidate.run_epoch()
    assert one_epoch == [True] * 5 + [False] * (len(one_epoch) - 5)
    assert model.modes == one_epoch * 2


def test_the_loss_is_the_mean_of_the_heads_cross_entropies() -> None:
    one_step = Training(epochs=1, steps_per_epoch=1)
    report = trainer_of(Constant(0.0), Echo(), one_step).run_epoch()
    assert report.loss == pytest.approx((math.log(16) + math.log(2)) / 2)


class Dice(nn.Module):
    """Logits that depend on what torch draws."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(6, 16))
        self.dropout = nn.Dropout(0.5)
        self.masks: list[bytes] = []

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = self.dropout(1 + self.value)
        if self.training:
            self.masks.append((logits == 0).numpy().tobytes())
        shapes = {"echo": logits, "odd": logits[0, :2]}
        return {name: shapes[name].expand(len(x), *shapes[name].shape) for name, x in inputs.items()}


def test_dropout_depends_on_seed_and_epoch_alone_also_after_a_state_is_loaded() -> None:
    candidates = [trainer_of(Dice(), Echo(), TRAINING, seed=3) for _ in range(2)]
    reports = [*train(candidates[0], TRAINING)]
    first = candidates[1].run_epoch()
    torch.manual_seed(99)
    resumed = trainer_of(Dice(), Echo(), TRAINING, seed=3)
    resumed.load_state(candidates[1].state())
    assert [first, *train(resumed, TRAINING)] == reports


def test_every_step_of_every_epoch_and_every_seed_draws_a_dropout_of_its_own() -> None:
    models = [Dice() for _ in range(2)]
    for seed, model in enumerate(models):
        candidate = trainer_of(model, Echo(), TRAINING, seed=seed)
        assert [*train(candidate, TRAINING)]
    masks = models[0].masks + models[1].masks
    assert len(set(masks)) == len(masks) == 30


class Line:
    """A regression: two numbers that follow from three."""

    heads = (Head(name="line", classes=2, length=3, dense=False),)
    holdout_size = 200
    digest = "line"
    weights = np.array([[1.0, -1.0], [0.5, 0.0], [0.0, 2.0]], dtype=np.float32)

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        inputs = rng.normal(size=(size, 3)).astype(np.float32)
        return {"line": Batch(inputs=inputs, targets=inputs @ self.weights)}

    def holdout(self) -> dict[str, Batch]:
        return self.batch(np.random.default_rng(99), self.holdout_size)


class Affine(nn.Module):
    """Answers a regression by a matrix."""

    def __init__(self, weights: Tensor, offset: float = 0.0) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.offset = offset

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: numbers @ self.weights + self.offset for name, numbers in inputs.items()}


def test_a_regression_is_learned_to_an_r_squared_near_1() -> None:
    training = Training(epochs=2, steps_per_epoch=60, learning_rate=0.1)
    candidate = trainer_of(Affine(torch.zeros(3, 2)), Line(), training)
    reports = [*train(candidate, training)]
    assert reports[-1].score > 0.99
    assert reports[-1].loss < reports[0].loss


def test_the_loss_of_a_regression_is_the_mean_squared_error() -> None:
    one_step = Training(epochs=1, steps_per_epoch=1)
    model = Affine(torch.from_numpy(Line.weights.copy()), offset=0.5)
    report = trainer_of(model, Line(), one_step).run_epoch()
    assert report.loss == pytest.approx(0.25)


def test_a_regression_scores_the_mean_r_squared_of_its_outputs() -> None:
    targets = Line().holdout()["line"].targets.astype(np.float64)
    spread = ((targets - targets.mean(0)) ** 2).sum(0)
    expected = (1 - 200 * 0.5**2 / spread).mean()
    model = Affine(torch.from_numpy(Line.weights.copy()), offset=0.5)
    assert 0 < expected < 0.95
    assert evaluate(model, Line(), CPU)["line"] == pytest.approx(expected, abs=1e-6)


def test_a_regression_worse_than_the_mean_scores_0() -> None:
    assert evaluate(Affine(torch.full((3, 2), 9.0)), Line(), CPU) == {"line": 0.0}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_regression_that_is_not_finite_scores_nothing(value: float) -> None:
    assert math.isnan(evaluate(Affine(torch.full((3, 2), value)), Line(), CPU)["line"])


class Flat(Line):
    """A regression whose hold-out has one answer only."""

    def holdout(self) -> dict[str, Batch]:
        batch = super().holdout()["line"]
        return {"line": Batch(inputs=batch.inputs, targets=np.ones_like(batch.targets))}


def test_a_regression_whose_holdout_does_not_vary_scores_nothing() -> None:
    assert math.isnan(evaluate(Affine(torch.zeros(3, 2)), Flat(), CPU)["line"])
    assert math.isnan(evaluate(Affine(torch.zeros(3, 2), offset=1.0), Flat(), CPU)["line"])


def test_outputs_that_are_not_shaped_like_the_numbers_are_refused() -> None:
    candidate = trainer_of(Affine(torch.zeros(3, 1)), Line(), TRAINING)
    with pytest.raises(ValueError, match=r"^line: outputs of shape \(8, 1\), expected \(8, 2\)$"):
        candidate.run_epoch()


def ticking(*seconds: float) -> Iterator[float]:
    """Times of a clock on which forward after forward takes so long."""
    now = 0.0
    for elapsed in seconds:
        yield now
        now += elapsed
        yield now


def test_the_last_report_tells_the_median_time_of_a_forward_after_the_warm_up() -> None:
    times = ticking(9.0, 9.0, 9.0, 9.0, 9.0, *[0.001] * 12, 0.002, *[5.0] * 12)
    model = Constant(0.0)
    candidate = trainer_of(
        model,
        Echo(),
        TRAINING,
        latency=True,
        clock=lambda: next(times),
    )
    latencies = [report.latency_ms for report in train(candidate, TRAINING)]
    assert latencies == [None, None, pytest.approx(2.0)]
    assert next(times, None) is None


def test_a_latency_is_that_of_one_sample_of_every_head_in_evaluation_mode() -> None:
    seen = []

    class Watched(Constant):
        def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            seen.append(({name: len(tokens) for name, tokens in inputs.items()}, self.training))
            return super().forward(inputs)

    once = Training(epochs=1, steps_per_epoch=1)
    trainer_of(Watched(0.0), Echo(), once, latency=True).run_epoch()
    timed = [call for call in seen if call == ({"echo": 1, "odd": 1}, False)]
    assert seen[-LATENCY_FORWARDS:] == timed


def test_a_model_in_training_mode_is_timed_in_evaluation_mode() -> None:
    model = Constant(0.0).train()
    latency_ms(model, Echo(), CPU, lambda: 0.0)
    assert set(model.modes) == {False}
    assert len(model.modes) == LATENCY_FORWARDS


def test_the_forwards_of_a_latency_are_part_of_the_plan_and_of_the_last_report() -> None:
    model = build(SPACE, SPEC, seed=0, device=CPU)
    candidate = trainer_of(model, Echo(), TRAINING, latency=True)
    flops = [report.flops for report in train(candidate, TRAINING)]
    epoch = 5 * 1_000 + 300 * 7
    assert flops == [epoch, 2 * epoch, 3 * epoch + LATENCY_FORWARDS * 7]
    assert planned_flops(COST, TRAINING, 300, latency=True) == flops[-1]
    assert planned_flops(COST, TRAINING, 300) == 3 * epoch


def test_latency_changes_no_score_and_no_weight() -> None:
    plain, timed = (trainer(latency=latency) for latency in (False, True))
    scores = [[report.score for report in train(one, TRAINING)] for one in (plain, timed)]
    assert scores[0] == scores[1]
    assert all(torch.equal(timed.state()[name], tensor) for name, tensor in plain.state().items())


class Recorder(Echo):
    """The same task, remembering what was drawn."""

    def __init__(self) -> None:
        self.drawn: list[bytes] = []

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        batch = super().batch(rng, size)
        self.drawn.append(batch["echo"].inputs.tobytes())
        return batch

    def holdout(self) -> dict[str, Batch]:
        return Echo().holdout()


def test_no_batch_is_drawn_twice_in_the_course_of_a_training() -> None:
    task = Recorder()
    assert [*train(trainer(task=task), TRAINING)]
    assert len(set(task.drawn)) == len(task.drawn) == 15


def test_weights_that_two_modules_share_are_saved_once() -> None:
    model = Constant(0.0)
    model.again = model.value
    candidate = trainer_of(model, Echo(), TRAINING)
    candidate.run_epoch()
    assert [name for name in candidate.state() if name.startswith("model.")] == ["model.value"]


def test_gradients_are_clipped_to_the_largest_norm_allowed() -> None:
    candidate = trainer(training=Training(epochs=1, steps_per_epoch=1, max_grad_norm=1e-3))
    candidate.run_epoch()
    gradients = [parameter.grad for parameter in candidate.model.parameters()]
    assert torch.nn.utils.get_total_norm([g for g in gradients if g is not None]) <= 1.001e-3


def test_weight_decay_shrinks_matrices_and_leaves_gains_alone() -> None:
    states = []
    for weight_decay in (0.0, 1.0):
        candidate = trainer(training=Training(epochs=1, steps_per_epoch=1, weight_decay=weight_decay))
        candidate.run_epoch()
        states.append(copied(candidate.state()))
    weights = [name for name in states[0] if name.startswith("model.")]
    decayed = {name for name in weights if not torch.equal(states[0][name], states[1][name])}
    assert decayed == {name for name in weights if states[0][name].ndim >= 2}


def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_final_share() -> None:
    training = Training(epochs=2, steps_per_epoch=50, learning_rate=1.0, warmup_steps=10, final_share=0.1)
    rates = [learning_rate_at(step, training) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.1)


def test_a_linear_schedule_falls_by_equal_steps_to_its_final_share() -> None:
    training = Training(
        epochs=2, steps_per_epoch=50, learning_rate=1.0, warmup_steps=20, final_share=0.2, schedule="linear"
    )
    rates = [learning_rate_at(step, training) for step in range(20, 101)]
    assert rates == pytest.approx(np.linspace(1.0, 0.2, 81))


def test_a_constant_schedule_stays_at_its_peak_after_the_warm_up() -> None:
    training = Training(
        epochs=2, steps_per_epoch=50, learning_rate=1.0, warmup_steps=20, final_share=0.2, schedule="constant"
    )
    assert learning_rate_at(0, training) == 1 / 20
    assert {learning_rate_at(step, training) for step in range(20, 101)} == {1.0}


def test_the_optimizer_follows_the_schedule() -> None:
    slow = Training(epochs=3, steps_per_epoch=5, batch_size=8, learning_rate=1e-2, warmup_steps=10**9)
    candidate = trainer(training=slow)
    before = copied(candidate.state())
    candidate.run_epoch()
    after = candidate.state()
    moved = [(after[name] - before[name]).abs().max() for name in before if name.startswith("model.")]
    assert max(moved) < 1e-8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("steps_per_epoch", 0),
        ("batch_size", -1),
        ("learning_rate", math.nan),
        ("learning_rate", 0.0),
        ("warmup_steps", -1),
        ("weight_decay", math.inf),
        ("final_share", 1.1),
        ("max_grad_norm", 0.0),
        ("schedule", "step"),
    ],
)
def test_a_training_out_of_its_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Training(**{name: value})  # type: ignore[arg-type]
