"""A study that is taken up again by a new process draws what it would have drawn in the old one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from rsi_ray.records import RECORD, Verdict
from rsi_ray.redraw import redraw
from rsi_ray.samplers import SAMPLERS
from rsi_ray.sampling import OptunaSearcher
from rsi_ray.study import open_study, take_up, trial_of
from safety import Allow, Claim, Deny
from tests.rsi_ray.test_sampling import result

ENQUEUED = ({"kind": "mlp", "depth": 2, "width": 8}, {"kind": "conv", "depth": 3, "kernel": 3})
TRIALS = 26


class Space:
    """Two kinds with a parameter of their own each; no more than a few of the specs are proposed twice."""

    def suggest(self, trial):
        kind = trial.suggest_categorical("kind", ["mlp", "conv"])
        depth = trial.suggest_int("depth", 1, 9)
        if kind == "mlp":
            return kind, depth, trial.suggest_int("width", 1, 64)
        return kind, depth, trial.suggest_int("kernel", 1, 9)


def price(config: Mapping[str, Any]) -> Claim:
    params = config["depth"] * config.get("width", 40)
    return Claim(params=params, forward_flops=params, memory_bytes=params, train_flops=1, wall_ms=1)


def judge(config: Mapping[str, Any]) -> Allow | Deny:
    over = price(config).params / 200 - 1
    return Deny("max_params", "too many", {"max_params": over}) if over > 0 else Allow()


def score(config: Mapping[str, Any]) -> float:
    return random.Random(str(sorted(config.items()))).random()


class Killed(Exception):
    pass


class Driver:
    """Runs a study one trial after the other; each process of it dies at its numbered moment."""

    def __init__(self, path, sampler):
        self.path, self.sampler = path, sampler

    def process(self, dies_at=None, is_resumed=False):
        self.left = dies_at
        study = open_study(self.path, "s", SAMPLERS[self.sampler](3))
        interrupted = take_up(study, ("score",))
        assert not is_resumed or redraw(study, Space()) == ""
        given = {"enqueued": ENQUEUED, "interrupted": interrupted, "seed": 3}
        searcher = OptunaSearcher(study, Space(), price=price, judge=judge, reports=2, **given)
        name, done = "", sum(t.user_attrs[RECORD]["verdict"] in RAN for t in study.trials if t.user_attrs)
        for number in range(done, TRIALS):
            name = f"{self.path.stem}-{number}"
            self.moment()
            config = searcher.suggest(name)
            while isinstance(judge(config), Deny):
                self.moment()
                searcher.on_trial_refused(name, judge(config))
                self.moment()
                config = searcher.suggest(name)
            self.moment()
            searcher.on_trial_result(name, result(score(config) / 2, step=1))
            self.moment()
            stopped = number % 5 == 0
            searcher.on_trial_complete(name, result(score(config), step=1 if stopped else 2))
        return study

    def moment(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


RAN = (Verdict.MEASURED, Verdict.STOPPED)


def told(study):
    return [
        (trial.params, trial.state, trial.values, trial.intermediate_values, trial.constraints)
        for trial in study.get_trials()
    ]


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_is_killed_again_and_again_is_that_of_an_undisturbed_one(tmp_path, sampler):
    undisturbed = told(Driver(tmp_path / "whole.log", sampler).process())
    assert any(state == TrialState.PRUNED and over for _, state, _, _, over in undisturbed)
    driver = Driver(tmp_path / "killed.log", sampler)
    is_resumed = False
    for dies_at in (0, 9, 2, 31, 5) if sampler == "gp" else (0, 9, 2, 1, 1, 3, 4, 1, 2, 31, 1, 1, 5):
        with pytest.raises(Killed):
            driver.process(dies_at, is_resumed)
        is_resumed = True
    assert told(driver.process(is_resumed=True)) == undisturbed


def test_the_twins_of_a_candidate_that_was_interrupted_wait_for_it_again(tmp_path):
    study = open_study(tmp_path / "s.log", "s", SAMPLERS["random"](0))
    for _ in range(2):
        study.enqueue_trial(ENQUEUED[0])
        Space().suggest(study.ask())
    left = take_up(study, ("score",))
    searcher = OptunaSearcher(study, Space(), price=price, judge=judge, reports=2, interrupted=left, seed=0)
    assert searcher.suggest("a") == ENQUEUED[0]
    searcher.suggest("b")
    searcher.on_trial_complete("a", result(0.5, step=2))
    assert [trial.value for trial in study.get_trials()[:2]] == [0.5, 0.5]


def test_a_baseline_that_was_interrupted_is_trained_alone_again(tmp_path):
    study = open_study(tmp_path / "s.log", "s", SAMPLERS["random"](0))
    study.enqueue_trial(ENQUEUED[0])
    searcher = OptunaSearcher(
        study, Space(), price=price, judge=judge, reports=2, baseline=ENQUEUED[0],
        interrupted=take_up(study, ("score",)), seed=0,
    )  # fmt: skip
    assert (searcher.suggest("a"), searcher.suggest("b")) == (ENQUEUED[0], None)
    searcher.on_trial_complete("a", result(0.5, step=2))
    assert study.get_trials()[0].user_attrs[RECORD]["baseline"]
    assert searcher.suggest("b") != ENQUEUED[0]


def drawn(path, seed):
    study = open_study(path, "s", SAMPLERS["random"](seed))
    Space().suggest(study.ask())
    return study


def test_a_sampler_that_draws_otherwise_is_told_of(tmp_path):
    drawn(tmp_path / "s.log", 0)
    otherwise = redraw(open_study(tmp_path / "s.log", "s", SAMPLERS["random"](1)), Space())
    assert otherwise.startswith("proposal 0 was {")


def test_a_sampler_that_takes_too_long_is_left_where_it_is(tmp_path):
    study = drawn(tmp_path / "s.log", 0)
    clock = iter([0.0, 5.0])
    assert redraw(study, Space(), most_seconds=4, seconds=lambda: next(clock)) == (
        "after 4 s only 0 proposals were drawn again"
    )


def test_what_was_told_or_mutated_was_never_drawn(tmp_path):
    study = open_study(tmp_path / "s.log", "s", SAMPLERS["random"](0))
    told_of = {"verdict": Verdict.EARLIER, "config": ENQUEUED[0]}
    study.add_trial(trial_of(Space(), ENQUEUED[0], TrialState.COMPLETE, [0.5], told_of))
    Space().suggest(study.ask())
    became = {"verdict": Verdict.MEASURED, "config": ENQUEUED[1], "proposed": ENQUEUED[0]}
    study.add_trial(trial_of(Space(), ENQUEUED[1], TrialState.COMPLETE, [0.5], became))
    third = study.ask()
    Space().suggest(third)
    again = open_study(tmp_path / "s.log", "s", SAMPLERS["random"](0))
    assert redraw(again, Space()) == ""
    fourth = study.ask(), again.ask()
    assert len({str(Space().suggest(trial)) for trial in fourth}) == 1
