"""What a candidate claims: nothing that it computes is left out, whosever the space and the task."""

from __future__ import annotations

import os
import pickle
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from rsi_ray.errors import GpuError
from rsi_ray.heritage import Parent
from rsi_ray.hyperparameters import TrainingChoices
from rsi_ray.placement import Resources
from rsi_ray.resident import kept_bytes
from rsi_ray.scoring import LATENCY_FORWARDS
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from rsi_ray.training import Training, planned_flops
from rsi_ray.training_job import TrainingJob
from safety import ArtifactError
from search_spaces import Cost, Head, MLPSpace, RandomTrial, TransformerSpace
from search_spaces.transformer_memory import mixed_memory_bytes

TASK = breast_cancer_task(BreastCancerOptions(holdout_size=32))
TRAINING = Training(epochs=2, steps_per_epoch=3, batch_size=8)
SPACE = MLPSpace(heads=TASK.heads, batch_size=8, depth=(1, 1), widths=(16,), dropouts=(0.0,))
CONFIG = {"activation": "relu", "norm": "none"}


@dataclass
class Loader:
    loads: int = 0
    task: object = TASK

    def __call__(self):
        self.loads += 1
        return self.task


@dataclass
class Swollen:
    """A task whose batches, or hold-out, are more than it says."""

    rows: int = 8
    holdout_size: int = 32
    heads: tuple = TASK.heads
    digest: str = "swollen"
    shape: tuple = (30,)
    head: str = "breast_cancer"

    def batch(self, rng, size):
        return TASK.batch(rng, self.rows)

    def holdout(self):
        holdout = TASK.holdout()["breast_cancer"]
        inputs = np.resize(holdout.inputs, (32, *self.shape))
        return {self.head: replace(holdout, inputs=inputs)}


class NoHoldout:
    """A task of which only the hold-out's size matters."""

    holdout_size = 1

    def holdout(self):
        return {}


@dataclass(frozen=True)
class Own:
    """Somebody's space, which says that its training costs nothing."""

    inner: MLPSpace = SPACE

    def suggest(self, trial):
        return self.inner.suggest(trial)

    def cost(self, spec):
        cost = self.inner.cost(spec)
        return Cost(params=cost.params, forward_flops=cost.forward_flops, train_step_flops=0, memory_bytes=0)

    def samples(self):
        return self.inner.samples()

    def build(self, spec):
        return self.inner.build(spec)


def job(space=SPACE, load_task=Loader, **changes):
    values = {"training": TRAINING, "seed": 0, "trial_seconds": 60, **changes}
    return TrainingJob(space=space, load_task=load_task(), **values)


def test_a_child_is_priced_with_the_training_of_those_that_it_inherits_from():
    job = TrainingJob(
        space=SPACE,
        load_task=Loader(),
        training=TRAINING,
        choices=TrainingChoices(),
        seed=0,
        trial_seconds=60,
    )
    parent = Parent(weights=Path("none"), artifact="", config=CONFIG, spec=None, train_flops=10**24)
    own, inherited = job.price(CONFIG), replace(job, parent=parent).price(CONFIG)
    assert inherited == replace(own, ancestor_flops=10**24)
    assert inherited.lineage_flops == own.train_flops + 10**24


def test_a_claim_is_every_step_and_every_evaluation():
    claim = job().price(CONFIG)
    cost = SPACE.cost(SPACE.suggest(_Given()))
    assert claim.train_flops == planned_flops(cost, TRAINING, 32)
    assert job(latency=True).price(CONFIG).train_flops > claim.train_flops


def test_a_searched_batch_size_is_priced():
    searched = job(choices=TrainingChoices(batch_size=(8, 64)))
    small, large = (searched.price({**CONFIG, "training.batch_size": size}) for size in (8, 64))
    assert large.train_flops > 4 * small.train_flops
    assert large.memory_bytes > small.memory_bytes


def test_a_space_that_says_its_training_is_free_is_not_believed():
    claim = job(space=Own()).price(CONFIG)
    steps = TRAINING.epochs * TRAINING.steps_per_epoch
    assert claim.train_flops >= steps * 3 * TRAINING.batch_size * claim.forward_flops


def test_a_candidate_is_built_under_the_limit_of_its_claim(monkeypatch):
    held, own = [], job()
    monkeypatch.setattr(
        "rsi_ray.training_job.hold_to", lambda reserved, device: held.append((reserved, device.type))
    )
    own.begin(CONFIG)
    assert held == [(own.price(CONFIG).memory_bytes, "cpu")]


def test_on_a_gpu_a_transformer_is_priced_in_mixed_precision_at_its_own_batch_size():
    heads = (Head(name="text", classes=8, length=4, dense=True),)
    space = TransformerSpace(heads=heads, batch_size=8, vocab=8, depth=(2, 2), widths=(64,))
    searched = TrainingChoices(batch_size=(8, 64))
    on_gpu, on_cpu = (
        job(
            space=space,
            choices=searched,
            resources=Resources(gpus=gpus),
            load_task=lambda: lambda: NoHoldout(),
        )
        for gpus in (1.0, 0.0)
    )
    trial = RandomTrial(random.Random(0))
    config = on_gpu.suggest(trial) and dict(trial.params) | {"training.batch_size": 64}
    spec = on_gpu.candidate(config).spec
    assert on_gpu.price(config).memory_bytes == mixed_memory_bytes(replace(space, batch_size=64), spec)
    assert on_cpu.price(config).memory_bytes == replace(space, batch_size=64).cost(spec).memory_bytes


def test_on_a_gpu_other_spaces_are_priced_with_a_copy_of_each_weight():
    more = job(resources=Resources(gpus=1.0)).price(CONFIG).memory_bytes - job().price(CONFIG).memory_bytes
    assert more == 2 * job().price(CONFIG).params + kept_bytes(TASK)


def test_cuda_is_begun_before_the_lease_and_on_a_cpu_never(monkeypatch):
    begun = []
    monkeypatch.setattr("rsi_ray.training_job.begin_cuda", begun.append)
    job().measure(CONFIG)
    assert begun == [torch.device("cpu")]


def test_a_task_is_loaded_once_and_never_sent_along():
    own = job()
    for _ in range(5):
        own.price(CONFIG)
    assert own.load_task.loads == 1
    assert "task" not in own.__getstate__()
    assert len(pickle.dumps(own)) < 100_000


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Swollen(rows=80), "breast_cancer: samples of shape .80, 30., priced were 8"),
        (Swollen(holdout_size=4), "breast_cancer: samples of shape .32, 30., priced were 4"),
        (Swollen(shape=(5, 30)), "breast_cancer: samples of shape .32, 5, 30., priced were 32 of .30,"),
        (Swollen(head="other"), "other: samples of shape .32, 30., priced were 32 of None"),
    ],
)
def test_a_task_that_gives_more_than_it_says_trains_nothing_more(task, message):
    with pytest.raises(ValueError, match=message):
        job(load_task=lambda: Loader(task=task)).begin(CONFIG).next_report()


class _Given:
    """Answers of CONFIG."""

    def suggest_categorical(self, name, choices):
        return CONFIG[name]


class Payload:
    """Whoever unpickles it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_checkpoint_that_is_a_pickle_or_a_link_is_refused_and_its_payload_is_not_run(tmp_path):
    run = job().begin(CONFIG)
    run.save(tmp_path / "state")
    run.restore(tmp_path / "state")
    (tmp_path / "link").symlink_to(tmp_path / "state")
    with pytest.raises(ArtifactError, match="expected a plain file, found a symbolic link"):
        run.restore(tmp_path / "link")
    (tmp_path / "pickle").write_bytes(pickle.dumps(Payload(str(tmp_path / "run"))))
    with pytest.raises(SafetensorError):
        run.restore(tmp_path / "pickle")
    assert not (tmp_path / "run").exists()


def spread(workers, gpus=0.0, **changes):
    task = breast_cancer_task(BreastCancerOptions(holdout_size=33))
    values = {"space": SPACE, "load_task": lambda: task, "training": TRAINING, "seed": 0, "trial_seconds": 9}
    return TrainingJob(**values, resources=Resources(workers=workers, gpus=gpus), **changes)


def test_several_workers_claim_what_one_does_and_the_evaluations_that_their_equal_shares_take_twice():
    one, two = spread(1).price(CONFIG), spread(2).price(CONFIG)
    assert two.train_flops == one.train_flops + TRAINING.epochs * one.forward_flops
    assert (two.params, two.forward_flops, two.wall_ms) == (one.params, one.forward_flops, one.wall_ms)
    three = spread(3).price(CONFIG)  # of 33 samples
    assert three.train_flops == one.train_flops


def test_each_of_several_workers_times_the_latency():
    one, three = (spread(count, latency=True).price(CONFIG).train_flops for count in (1, 3))
    assert three - one == 2 * LATENCY_FORWARDS * spread(1).price(CONFIG).forward_flops


def test_replicas_claim_their_memory_each():
    one, two = spread(1).price(CONFIG), spread(2).price(CONFIG)
    state = 16 * one.params
    assert two.memory_bytes == 2 * (state + (one.memory_bytes - state) // 2)


def test_each_workers_gpu_has_copies_and_hold_out_whole_and_its_time_is_claimed():
    one, two = spread(1, gpus=0.5).price(CONFIG), spread(2, gpus=0.5).price(CONFIG)
    state, whole = 16 * one.params, 2 * one.params + kept_bytes(spread(1).task)
    assert two.memory_bytes == 2 * (whole + state + (one.memory_bytes - state - whole) // 2)
    assert (one.gpu_ms, two.gpu_ms) == (4_500, 9_000)


def test_a_configuration_whose_batch_is_smaller_than_its_workers_has_no_price():
    with pytest.raises(ValueError, match="workers: 9, expected at most the 8 samples"):
        spread(9).price(CONFIG)


def test_a_gpu_that_torch_can_not_use_is_no_candidates(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("rsi_ray.gpu_check.has_driver", lambda drivers: True)
    monkeypatch.setattr("rsi_ray.gpu_check.hidden_by", lambda: "")
    job(resources=Resources(workers=2, gpus=1.0), training=replace(TRAINING, batch_size=8)).measure(CONFIG)
    with pytest.raises(GpuError, match="torch can't use one"):
        job(resources=Resources(gpus=1.0)).measure(CONFIG)
