"""Members that are trained as one batch come out as they would one after the other."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from rsi_ray.stacked import can_stack
from search_spaces import MLPSpec
from search_spaces.space import Sample
from tests.rsi_ray.member_jobs import CASES, MEMBERS, MLP, job_of, trainers
from tests.rsi_ray.test_train import copied

TOLERANCE = 2e-5


pytestmark = pytest.mark.usefixtures("one_thread")


def furthest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize("case", CASES)
def test_every_space_is_stacked_and_every_member_comes_out_as_alone(case: str) -> None:
    together, alone = (trainers(case, stacked=stacked) for stacked in (True, False))
    assert together._stacked
    assert not alone._stacked
    before = copied(together.state())
    assert furthest(before, alone.state()) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an operator that `vmap` has no rule for would be slow
        reports = [together.run_epoch() for _ in range(2)]
    expected = [alone.run_epoch() for _ in range(2)]
    for report, wanted in zip(reports, expected, strict=True):
        assert report.loss == pytest.approx(wanted.loss, abs=1e-4)
        assert (report.epoch, report.flops, report.samples) == (wanted.epoch, wanted.flops, wanted.samples)
    # Adam makes full steps of gradients that are next to nothing, and their rounding with them
    after, wanted_after = together.state(), alone.state()
    for name in (name for name in before if ".model." in name):
        moved = (wanted_after[name] - before[name]).norm()
        assert float((after[name] - wanted_after[name]).norm()) < 5e-3 * float(moved)


@pytest.mark.parametrize("case", CASES)
def test_a_stack_holds_no_more_than_was_claimed_for_all_members(case: str) -> None:
    job, config = job_of(case, members=replace(MEMBERS, stacked=True), steps_per_epoch=1)
    trainer, claim = job.trainer(config), job.price(config)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.run_epoch()
    weights = next(trainer._trainers[0].model.parameters()).untyped_storage()
    activations = sum(one.nbytes() for key, one in kept.items() if key != weights._cdata)
    # weights, gradients and two moments; the inputs are those of the data
    held = activations + 16 * claim.members * claim.params
    assert held <= 1.05 * claim.memory_bytes


@pytest.mark.parametrize("what", ["stack", "one_matrix"])
def test_a_process_that_trains_a_stack_grows_by_no_more_than_was_claimed(what: str) -> None:
    subprocess.run([sys.executable, "-m", "tests.rsi_ray.claim_kept", what], check=True, timeout=240)


def test_members_differ_by_their_learning_rate_and_by_their_seed() -> None:
    trainer = trainers("mlp", stacked=True)
    trainer.run_epoch()
    weights = [member.model.state_dict()["backbone.0.linear.weight"] for member in trainer._trainers]
    assert len({one.numpy().tobytes() for one in weights}) == MEMBERS.count == 6


def test_each_members_gradients_are_clipped_by_its_own_norm() -> None:
    trainer = trainers("mlp", stacked=True, steps_per_epoch=1, max_grad_norm=1e-3)
    trainer.run_epoch()
    for member in trainer._trainers:
        means = [one["exp_avg"] for one in member.optimizer.state.values()]
        assert float(nn.utils.get_total_norm(means)) == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_a_member_that_diverges_leaves_the_others_alone() -> None:
    together, alone = (trainers("mlp", stacked=stacked) for stacked in (True, False))
    with torch.no_grad():
        for trainer in (together, alone):
            next(trainer._trainers[1].model.parameters()).fill_(math.nan)
    report, expected = together.run_epoch(), alone.run_epoch()
    assert report.chosen == expected.chosen
    others = [name for name in together.state() if not name.startswith("1.")]
    assert furthest(*[{n: one.state()[n] for n in others} for one in (together, alone)]) < TOLERANCE
    assert together.state()["1.model.backbone.0.linear.weight"].isnan().all()


class Odd(nn.Module):
    """One linear map, and what some modules do in training beside it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.kind = kind
        if kind == "norm":
            self.norm = nn.BatchNorm1d(2)
        if kind == "unused":
            self.spare = nn.Linear(3, 2)
        if kind == "frozen":
            self.linear.bias.requires_grad_(False)
        if kind == "double":
            self.double()

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Answer the only head."""
        x = inputs["x"].double() if self.kind == "double" else inputs["x"]
        out = self.linear(x)
        if self.kind == "norm":
            out = self.norm(out)
        if self.kind == "noise":
            out = out + torch.randn_like(out)
        if self.kind == "choice" and out.sum() > 0:
            out = -out
        return {"x": out}


SAMPLES = {"x": Sample(shape=(3,), dtype="float32")}


def test_a_module_of_parameters_alone_can_be_stacked() -> None:
    assert can_stack(partial(Odd, ""), SAMPLES)


@pytest.mark.parametrize("kind", ["norm", "noise", "choice", "unused", "frozen", "double"])
def test_a_module_that_would_not_come_out_as_alone_is_not_stacked(kind: str) -> None:
    assert not can_stack(partial(Odd, kind), SAMPLES)


def test_dropout_is_not_stacked_and_its_members_are_trained_one_after_the_other() -> None:
    specs = [
        MLPSpec(widths=(16,), activation="relu", norm="none", residual=False, dropout=dropout)
        for dropout in (0.0, 0.1)
    ]
    assert [can_stack(partial(MLP.build, spec), MLP.samples()) for spec in specs] == [True, False]
