"""The samplers by name: under a ceiling, beside each other, and whom they learn from."""

from __future__ import annotations

from collections import Counter

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from rsi_ray.samplers import SAMPLERS, sampler_of
from rsi_ray.samplers.gp import HandOver
from rsi_ray.samplers.guarded import Guarded
from rsi_ray.samplers.history import BEST_KEPT, History
from rsi_ray.samplers.nsga2 import latest_generations
from rsi_ray.samplers.refused import refused_as_worst, with_measured_constraints
from rsi_ray.samplers.tpe import LATEST, best_and_latest
from rsi_ray.sampling import OptunaSearcher
from safety import Allow, Claim, Deny

NAMES = ("tpe", "random", "gp", "nsga2", "cmaes", "evolution", "linear", "meta")
CEILING = 8
BRANCH = {"kind": optuna.distributions.CategoricalDistribution(("a", "b"))}


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Seedless(RandomSampler):
    def __init__(self):
        super().__init__(seed=7)


class Layers:
    """One to three layers of one to four units, with or without a bias: 168 specs, 128 under the ceiling."""

    def suggest(self, trial):
        layers = range(trial.suggest_int("depth", 1, 3))
        trial.suggest_categorical("bias", (False, True))
        return [trial.suggest_categorical(f"units_{layer}", (1, 2, 3, 4)) for layer in layers]


def units(config):
    return sum(value for name, value in config.items() if name.startswith("units"))


def price(config):
    return Claim(params=units(config), forward_flops=1, memory_bytes=1, train_flops=1, wall_ms=1)


def judge(config):
    over = units(config) / CEILING - 1
    return Deny("max_params", "too many", {"max_params": over}) if over > 0 else Allow()


def searcher_with(sampler, seed=0):
    study = optuna.create_study(direction="maximize", sampler=sampler)
    return OptunaSearcher(study, Layers(), price=price, judge=judge, reports=1, seed=seed)


def run(searcher, evaluations):
    """Search as a sweep does; the configurations that ran."""
    ran = []
    while len(ran) < evaluations:
        name = str(len(ran))
        config = searcher.suggest(name)
        if config == Searcher.FINISHED:
            break
        verdict = judge(config)
        if isinstance(verdict, Deny):
            searcher.on_trial_refused(name, verdict)
            continue
        ran.append(config)
        lease = {"lease/train_flops": 1, "lease/wall_ms": 1}
        searcher.on_trial_complete(name, {"score": units(config), "training_iteration": 1, **lease})
    return ran


def proposals(study, *, refused):
    return Counter(
        tuple(trial.params.items())
        for trial in study.get_trials()
        if "fixed_params" not in trial.system_attrs and any(trial.constraints.values()) == refused
    )


def test_the_samplers_are_those_that_are_promised():
    assert tuple(SAMPLERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nothing_over_the_ceiling_runs_and_no_spec_is_proposed_again(name):
    searcher = searcher_with(sampler_of(name, 0))
    evaluations = 12 if name == "gp" else 60
    ran = run(searcher, evaluations)
    assert len(ran) == evaluations
    assert all(units(config) <= CEILING for config in ran)
    assert max(proposals(searcher.study, refused=True).values(), default=0) <= 1
    assert max(proposals(searcher.study, refused=False).values()) == 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gp"])
def test_a_small_space_is_searched_to_its_end_without_asking_twice_for_what_was_refused(name):
    searcher = searcher_with(sampler_of(name, 1))
    ran = run(searcher, 1000)
    assert len(ran) == 128
    assert max(proposals(searcher.study, refused=True).values()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_the_search(name):
    count = 11 if name == "gp" else 30
    assert run(searcher_with(sampler_of(name, 3)), count) == run(searcher_with(sampler_of(name, 3)), count)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_a_sampler_learns_where_it_is_refused(name):
    # an eighth of the square is under the ceiling, and every score is the same
    study = optuna.create_study(direction="maximize", sampler=sampler_of(name, 0))
    admitted = []
    for _ in range(20 if name == "gp" else 200):
        trial = study.ask()
        total = trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1)
        admitted.append(total <= 0.5)
        if total > 0.5:
            trial.set_constraint("max_params", total / 0.5 - 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, 0.0)
    late = admitted[len(admitted) // 2 :]
    assert sum(late) / len(late) > 2 / 8


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cmaes"])
def test_two_objectives_can_be_searched(name):
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler_of(name, 0))
    for _ in range(12 if name == "gp" else 60):
        trial = study.ask()
        spec = Layers().suggest(trial)
        if sum(spec) > CEILING:
            trial.set_constraint("max_params", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [max(spec), sum(spec)])
    assert {1.0, 4.0} <= {trial.values[0] for trial in study.best_trials}


def test_a_class_of_ones_own_is_made_with_the_seed_where_it_takes_one():
    seeded = sampler_of("optuna.samplers:QMCSampler", 5)
    assert isinstance(seeded, BaseSampler)
    assert run(searcher_with(sampler_of("optuna.samplers:RandomSampler", 5)), 9) == run(
        searcher_with(Guarded(RandomSampler(seed=5), seed=5)), 9
    )
    assert run(searcher_with(sampler_of(f"{__name__}:Seedless", 5)), 9) == run(
        searcher_with(Guarded(RandomSampler(seed=7), seed=5)), 9
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "annealing",
            "^'annealing', expected one of tpe, random, gp, .*, evolution, linear, meta, or module:Class$",
        ),
        ("no.such.module:Class", "no.such.module"),
        ("optuna.samplers:Annealing", "optuna.samplers has no Annealing$"),
        ("optuna:Study", "expected a class of Optuna's samplers, found"),
        ("optuna:create_study", "expected a class of Optuna's samplers, found"),
    ],
)
def test_an_unknown_sampler_is_refused_in_one_line(name, message):
    with pytest.raises(ValueError, match=message) as refusal:
        sampler_of(name, 0)
    assert "\n" not in str(refusal.value)


def finished(number, value=None, over=0.0):
    trial = create_trial(
        state=TrialState.PRUNED if over else TrialState.COMPLETE,
        params={"kind": "a"},
        distributions=BRANCH,
        value=value,
        constraints={"max_params": over} if over else None,
    )
    trial.number = number
    return trial


def history_of(trials, direction="maximize"):
    study = optuna.create_study(direction=direction)
    study.add_trials(trials)
    history = History()
    history.refresh(study)
    return history, study


@pytest.mark.parametrize("shown", [best_and_latest, latest_generations])
def test_a_sampler_is_shown_the_best_and_the_latest_of_a_long_study(shown):
    trials = [finished(number, value=-float(number)) for number in range(900)]
    trials += [finished(number, over=0.1) for number in range(900, 1800)]
    history, study = history_of(trials)
    numbers = {trial.number for trial in shown(history, study)}
    assert len(numbers) <= 2 * BEST_KEPT + 3 * LATEST
    assert {0, 9, 899, 1799} <= numbers


def test_the_best_are_kept_by_the_direction_of_the_study():
    trials = [finished(number, value=float(number % 500)) for number in range(1000)]
    history, _ = history_of(trials, "minimize")
    assert {trial.value for trial in history.best} >= {float(value) for value in range(BEST_KEPT // 2)}


@pytest.mark.parametrize(("direction", "sign"), [("maximize", -1), ("minimize", 1)])
def test_cmaes_sees_refused_specs_as_worse_than_any_other_by_their_excess(direction, sign):
    study = optuna.create_study(direction=direction)
    study.add_trials([finished(0, 3.0), finished(1, -2.0), finished(2, over=0.5), finished(3, over=0.1)])
    losses = [sign * trial.value for trial in refused_as_worst(study)]
    assert max(losses[:2]) < losses[3] < losses[2]


def test_a_model_of_the_constraint_sees_one_value_of_it_in_every_trial():
    shown = with_measured_constraints([finished(0, 3.0), finished(1, 1.0)], [finished(2, over=0.5)])
    assert [trial.constraints for trial in shown] == [{"excess": -0.5}, {"excess": -0.5}, {"excess": 0.5}]
    assert [trial.values for trial in shown] == [[3.0], [1.0], [2.0]]
    assert all(trial.state == TrialState.COMPLETE for trial in shown)


def test_a_generation_of_nsga2_holds_refused_specs_as_complete_ones():
    history, study = history_of([finished(0, 3.0), finished(1, over=0.5)])
    states = [(trial.state, trial.constraints) for trial in latest_generations(history, study)]
    assert states == [(TrialState.COMPLETE, {}), (TrialState.COMPLETE, {"max_params": 0.5})]


def test_one_sampler_hands_over_to_another_after_the_first_proposals():
    first, then = (optuna.samplers.PartialFixedSampler({"x": x}, RandomSampler(seed=0)) for x in (0.25, 0.75))
    study = optuna.create_study(sampler=HandOver(first, then, young=2))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
    assert [trial.params["x"] for trial in study.trials] == [0.25, 0.25, 0.75, 0.75]
