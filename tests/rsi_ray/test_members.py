"""Members of a candidate: which one stands for all, what they may be, and where they are worth a stack."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rsi_ray.config import parse_config
from rsi_ray.hyperparameters import TrainingChoices
from rsi_ray.members import Members, choose, chosen_of, member_seed, should_stack
from rsi_ray.wiring import training_of
from safety import DocumentError
from safety.document import parse_yaml
from tests.rsi_ray.member_jobs import job_of
from tests.rsi_ray.test_config import LIMITS

NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "seeds", "chosen"),
    [
        ([0.1, 0.3, 0.2], 1, 1),
        ([0.1, 0.3, 0.2], 3, 2),
        # the second learning rate has the best seed, the first one the better median
        ([0.5, 0.6, 0.4, 0.1, 0.9, 0.2], 3, 0),
        # of two seeds the lower one, and of those the higher
        ([0.1, 0.8, 0.4, 0.3], 2, 3),
        ([NAN, 0.2, 0.1], 1, 1),
        ([NAN, 0.9, 0.2, 0.1], 2, 3),
        ([NAN, NAN, 0.2], 3, 1),
        ([NAN, NAN], 1, 0),
        ([0.3, 0.3], 1, 0),
    ],
)
def test_the_median_seed_of_the_learning_rate_with_the_best_median_stands_for_all(
    scores: list[float], seeds: int, chosen: int
) -> None:
    assert choose(scores, seeds) == chosen


def test_what_is_told_of_the_chosen_are_the_seeds_beside_it_and_the_highest_of_all() -> None:
    members = Members(learning_rates=(1.0, 2.0), seeds=3)
    scores = [0.9, 0.9, 0.0, 0.25, 0.5, 0.75]
    domains = [{"a": 0.1}, {"a": 0.7}, {"a": NAN}, {"a": 0.2}, {"a": 0.3}, {"a": 0.4}]
    told = chosen_of(members, 4, 2.0, scores, domains).told()
    beside = {"learning_rate": 2.0, "seed": 1, "lowest": 0.25, "mean": 0.5, "highest": 0.75}
    assert told == {"members": beside, "highest_domains": {"a": 0.7}}


def test_the_first_member_has_the_candidates_own_seed_and_no_two_have_the_same() -> None:
    assert member_seed(7, 0) == 7
    seeds = {member_seed(seed, index) for seed in (7, 8) for index in range(50)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("count", "params", "step_flops", "device", "stacked"),
    [
        (1, 100, 10**6, "cpu", False),
        (2, 100, 10**6, "cpu", False),
        (4, 100, 10**6, "cpu", True),
        (16, 80_000, 200_000_000, "cpu", True),
        (16, 80_001, 10**6, "cpu", False),
        (16, 100, 200_000_001, "cpu", False),
        (2, 10**6, 10**9, "cuda", True),
        (16, 10**6, 10**12, "cuda", False),
        (16, 100, 10**6, "mps", False),
    ],
)
def test_many_members_of_a_small_shape_are_worth_a_stack(
    count: int, params: int, step_flops: int, device: str, stacked: bool
) -> None:
    assert should_stack(count, params=params, step_flops=step_flops, device=device) is stacked


def parse(text: str):
    return parse_config(parse_yaml(text + LIMITS, source="f.yaml"), folder=Path("/data"))


def test_a_file_names_learning_rates_and_seeds_and_has_one_member_without() -> None:
    training = training_of(
        parse("training: {members: {learning_rates: [1e-3, 1e-2], seeds: 3, stacked: false}}\n")
    )
    assert training.members == Members(learning_rates=(1e-3, 1e-2), seeds=3, stacked=False)
    assert training.members.count == 6
    assert training_of(parse("")).members == Members()
    assert Members().count == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training: {members: {learning_rates: [1e-3]}}",
            r"f\.yaml:1: training\.members\.learning_rates: \[0\.001\], expected two or more different "
            r"numbers over 0; a single one is the training's learning_rate",
        ),
        (
            "training: {members: {learning_rates: [1e-3, 1e-3]}}",
            r"f\.yaml:1: training\.members\.learning_rates: \[0\.001, 0\.001\], expected two or more",
        ),
        ("training: {members: {seeds: 0}}", r"f\.yaml:1: training\.members\.seeds: expected .* found 0"),
        ("training: {members: {seeds: 1.5}}", r"f\.yaml:1: training\.members\.seeds: expected .* found 1\.5"),
        ("training: {members: {rates: [1, 2]}}", r"f\.yaml:1: training\.members\.rates: "),
        (
            "training: {members: {learning_rates: [1e-3, 1e-2]}}\n"
            "hyperparameters: {learning_rate: [1e-4, 1e-2]}",
            r"f\.yaml:2: hyperparameters\.learning_rate: searched, and training\.members\.learning_rates "
            r"trains several of them side by side; expected one of both",
        ),
    ],
)
def test_members_that_can_not_be_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=f"^{message}") as told:
        parse(f"{text}\n")
    assert "\n" not in str(told.value)


def test_a_sweep_in_python_is_refused_the_same() -> None:
    job, _ = job_of("mlp")
    with pytest.raises(ValueError, match=r"^learning_rate: searched, and training\.members\.learning_rates"):
        type(job)(**{**vars(job), "choices": TrainingChoices(learning_rate=(1e-4, 1e-2))})
    with pytest.raises(ValueError, match=r"^members\.seeds: 0, expected a whole number from 1"):
        Members(seeds=0)
