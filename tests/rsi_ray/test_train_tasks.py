"""Spaces, tasks and training together: every task is learned by the models of its own kind of space."""

import numpy as np
import pytest
import torch

from rsi_ray.hyperparameters import TrainingChoices, space_for
from rsi_ray.tasks import (
    BreastCancerOptions,
    DiabetesOptions,
    DigitsOptions,
    TextFilesOptions,
    breast_cancer_task,
    diabetes_task,
    digits_task,
    text_files_task,
)
from rsi_ray.train import Trainer, build, train
from rsi_ray.training import Training
from search_spaces.convnet import ConvSpace, ConvSpec, ConvStage
from search_spaces.mlp import MLPSpace, MLPSpec
from search_spaces.transformer import TransformerSpace, TransformerSpec

CPU = torch.device("cpu")
STAGE = {"depth": 1, "kernel_size": 3, "expansion": 1, "groups": 1, "squeeze_excite": False}
CONV = ConvSpec(
    stages=(
        ConvStage(width=24, downsample=None, **STAGE),
        ConvStage(width=48, downsample="conv", **STAGE),
    ),
    dropout=0.0,
)
MLP = MLPSpec(widths=(32,), activation="relu", norm="layernorm", residual=False, dropout=0.1)
TRANSFORMER = TransformerSpec(
    depth=1,
    width=32,
    heads=2,
    kv_heads=2,
    ffn_width=32,
    ffn_kind="gelu",
    norm="rmsnorm",
    position="learned",
    tied=True,
)


pytestmark = pytest.mark.usefixtures("one_thread")


def trained(space, spec, task, training):
    model = build(space, spec, seed=0, device=CPU)
    shapes = {name: sample.shape for name, sample in space.samples().items()}
    trainer = Trainer(model, task, training, cost=space.cost(spec), shapes=shapes, seed=0, device=CPU)
    return [*train(trainer, training)]


def texts_task(folder):
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "mat"], 8_000)
    (folder / "a.txt").write_text(" ".join(words))
    return text_files_task(TextFilesOptions(paths=(str(folder),), text_length=32, holdout_size=16))


def test_a_convolutional_network_reads_the_digits():
    task = digits_task(DigitsOptions())
    training = Training(epochs=3, steps_per_epoch=30, learning_rate=2e-2, warmup_steps=10)
    report = trained(ConvSpace(heads=task.heads, batch_size=32), CONV, task, training)[-1]
    assert report.score > 0.9


def test_a_perceptron_tells_malignant_tumours_from_benign_ones():
    task = breast_cancer_task(BreastCancerOptions())
    training = Training(epochs=3, steps_per_epoch=40, learning_rate=3e-3, warmup_steps=10)
    report = trained(MLPSpace(heads=task.heads, batch_size=32), MLP, task, training)[-1]
    assert report.score > 0.93


def test_a_perceptron_foretells_diabetes_better_than_the_mean_does():
    task = diabetes_task(DiabetesOptions())
    training = Training(epochs=2, steps_per_epoch=40, learning_rate=3e-3, warmup_steps=10)
    report = trained(MLPSpace(heads=task.heads, batch_size=32), MLP, task, training)[-1]
    assert 0.3 < report.score < 0.7


def test_a_transformer_learns_a_text_of_the_users(tmp_path):
    task = texts_task(tmp_path)
    training = Training(epochs=2, steps_per_epoch=40, learning_rate=1e-2, warmup_steps=10)
    reports = trained(TransformerSpace(heads=task.heads, batch_size=32), TRANSFORMER, task, training)
    assert reports[-1].score > 0.4


def test_tasks_give_the_samples_that_the_spaces_price(tmp_path):
    spaces = {
        ConvSpace: digits_task(DigitsOptions()),
        MLPSpace: diabetes_task(DiabetesOptions()),
        TransformerSpace: texts_task(tmp_path),
    }
    for space, task in spaces.items():
        for name, sample in space(heads=task.heads, batch_size=8).samples().items():
            inputs = task.batch(np.random.default_rng(0), 8)[name].inputs
            assert (inputs.shape[1:], inputs.dtype.name) == (sample.shape, sample.dtype)


@pytest.mark.parametrize("space", [ConvSpace, MLPSpace])
def test_a_searched_batch_size_prices_the_steps_of_every_kind_of_space(space):
    tasks = {ConvSpace: digits_task(DigitsOptions()), MLPSpace: diabetes_task(DiabetesOptions())}
    spec = {ConvSpace: CONV, MLPSpace: MLP}[space]
    own = space(heads=tasks[space].heads, batch_size=8)
    training = TrainingChoices(batch_size=(64,)).suggest(None, Training())
    ratio = space_for(own, training).cost(spec).train_step_flops / own.cost(spec).train_step_flops
    assert ratio == 8
