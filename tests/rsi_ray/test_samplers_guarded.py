"""A guarded sampler proposes nothing that the study knows, whatever the sampler inside insists on."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from rsi_ray.records import RECORD
from rsi_ray.samplers import Guarded
from rsi_ray.samplers.guarded import StudyView
from rsi_ray.samplers.known_specs import KnownSpecs, number_of_values, values_of

AB = CategoricalDistribution(("a", "b"))


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Stubborn(BaseSampler):
    """Proposes the first value of everything; as a whole, the parameters that it is told to."""

    def __init__(self, *whole):
        self.whole, self.seen = whole, []

    def infer_relative_search_space(self, study, trial):
        self.seen.append([trial.number for trial in study.get_trials(deepcopy=False)])
        return dict.fromkeys(self.whole, AB)

    def sample_relative(self, study, trial, search_space):
        return dict.fromkeys(search_space, "a")

    def sample_independent(self, study, trial, name, distribution):
        return values_of(distribution)[0] if values_of(distribution) else distribution.low


def branching(trial):
    """Five specs."""
    if trial.suggest_categorical("x", ("a", "b")) == "a":
        return trial.suggest_int("n", 1, 3)
    return trial.suggest_categorical("y", ("a", "b"))


def square(trial):
    return trial.suggest_categorical("x", ("a", "b")), trial.suggest_categorical("y", ("a", "b"))


def specs(study):
    return [tuple(trial.params.values()) for trial in study.get_trials()]


def tell(study, space, ends):
    for end in ends:
        trial = study.ask()
        space(trial)
        if end == "refused":
            trial.set_constraint("max_params", 0.1)
            study.tell(trial, state=TrialState.PRUNED)
        elif end == "failed":
            trial.set_user_attr(RECORD, {"verdict": "failed"})
            study.tell(trial, state=TrialState.FAIL)
        elif end == "interrupted":
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, 0.5)


@pytest.mark.parametrize("whole", [(), ("x",), ("x", "y")])
@pytest.mark.parametrize("end", ["refused", "measured", "failed"])
def test_every_spec_of_a_space_is_proposed_once_before_one_is_again(whole, end):
    study = optuna.create_study(sampler=Guarded(Stubborn(*whole), seed=0))
    tell(study, branching, [end] * 5)
    assert specs(study)[0] == ("a", 1)
    assert sorted(map(str, specs(study))) == ["('a', 1)", "('a', 2)", "('a', 3)", "('b', 'a')", "('b', 'b')"]


def test_an_interrupted_spec_is_proposed_again():
    study = optuna.create_study(sampler=Guarded(Stubborn(), seed=0))
    tell(study, branching, ["interrupted"] * 2)
    assert specs(study) == [("a", 1), ("a", 1)]


def test_where_every_spec_is_known_none_that_was_refused_is_proposed():
    study = optuna.create_study(sampler=Guarded(Stubborn("x", "y"), seed=0))
    tell(study, square, ["refused", "refused", "measured", "refused"])
    measured = specs(study)[2]
    tell(study, square, ["measured"] * 10)
    assert set(specs(study)[4:]) == {measured}


def test_where_every_spec_was_refused_the_sampler_has_its_way():
    study = optuna.create_study(sampler=Guarded(Stubborn(), seed=0))
    tell(study, square, ["refused"] * 5)
    assert specs(study)[4] == ("a", "a")


def test_a_known_proposal_is_moved_to_a_neighbour_with_one_parameter_changed():
    moved = set()
    for seed in range(20):
        study = optuna.create_study(sampler=Guarded(Stubborn("x", "y"), seed=seed))
        tell(study, square, ["refused"] * 2)
        moved.add(specs(study)[1])
    assert moved == {("a", "b"), ("b", "a")}


def test_a_parameter_of_one_value_takes_no_part():
    def space(trial):
        return trial.suggest_categorical("only", ("one",)), *square(trial)

    moved = set()
    for seed in range(20):
        study = optuna.create_study(sampler=Guarded(Stubborn("x", "y"), seed=seed))
        tell(study, space, ["refused"] * 2)
        moved.add(specs(study)[1])
    assert moved == {("one", "a", "b"), ("one", "b", "a")}


def test_a_space_of_one_spec_is_proposed_again():
    study = optuna.create_study(sampler=Guarded(Stubborn(), seed=0))
    tell(study, lambda trial: trial.suggest_categorical("only", ("one",)), ["refused"] * 3)
    assert specs(study) == [("one",)] * 3


def test_choices_that_have_changed_since_can_be_proposed():
    study = optuna.create_study(sampler=Guarded(Stubborn(), seed=0))
    tell(study, lambda trial: trial.suggest_int("n", 1, 2), ["measured"] * 2)
    tell(study, lambda trial: trial.suggest_int("n", 1, 1), ["measured"])
    tell(study, lambda trial: trial.suggest_int("n", 1, 2), ["measured"])
    assert len(specs(study)) == 4


def test_a_refused_value_of_a_continuous_parameter_is_drawn_anew():
    study = optuna.create_study(sampler=Guarded(Stubborn(), seed=0))
    tell(study, lambda trial: trial.suggest_float("x", 0, 1), ["refused"] * 3)
    assert len(set(specs(study))) == 3


def test_what_a_study_held_before_is_known():
    study = optuna.create_study(sampler=Guarded(Stubborn(), seed=0))
    study.add_trial(create_trial(params={"x": "a", "y": "a"}, distributions={"x": AB, "y": AB}, value=1.0))
    tell(study, square, ["measured"])
    assert specs(study)[1] != ("a", "a")


def test_an_enqueued_spec_is_taken_as_it_is():
    study = optuna.create_study(sampler=Guarded(Stubborn(), seed=0))
    tell(study, square, ["refused"])
    study.enqueue_trial({"x": "a", "y": "a"})
    tell(study, square, ["refused"])
    assert specs(study) == [("a", "a")] * 2


def test_the_inner_sampler_sees_what_it_is_shown_and_what_runs():
    inner = Stubborn()
    sampler = Guarded(inner, seed=0, shown=lambda history, _study: history.complete[-2:])
    study = optuna.create_study(sampler=sampler)
    tell(study, lambda trial: trial.suggest_int("n", 0, 9), ["measured", "measured", "refused", "measured"])
    study.ask().suggest_int("n", 0, 9)
    assert inner.seen[-1] == [1, 3, 4]


def test_a_view_filters_by_state_and_copies_where_asked():
    study = optuna.create_study()
    tell(study, square, ["measured", "refused"])
    view = StudyView(study, study.get_trials(deepcopy=False)[::-1])
    assert [trial.number for trial in view.get_trials()] == [0, 1]
    assert [trial.number for trial in view.get_trials(states=[TrialState.PRUNED])] == [1]
    assert view.get_trials(deepcopy=False)[0] is study.get_trials(deepcopy=False)[0]
    assert view.get_trials()[0] is not study.get_trials(deepcopy=False)[0]
    assert len(study.get_trials()) == 2


def known(params, distributions, *, refused=False):
    specs = KnownSpecs()
    specs.add(create_trial(params=params, distributions=distributions, value=0.0), refused=refused)
    return specs


def test_a_value_is_closed_when_nothing_is_left_open_below_it():
    specs = known({"x": "a", "y": "a"}, {"x": AB, "y": AB})
    assert specs.place({}).is_open("x", "a")
    assert not specs.place({"x": "a"}).is_open("y", "a")
    assert specs.place({"x": "b"}) is None
    trial = create_trial(params={"x": "a", "y": "b"}, distributions={"x": AB, "y": AB}, value=0.0)
    specs.add(trial, refused=False)
    specs.add(trial, refused=True)
    assert not specs.place({}).is_open("x", "a")
    assert {"y": "b", "x": "a"} in specs
    assert {"x": "a"} not in specs


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (AB, ["a", "b"]),
        (IntDistribution(2, 8, step=3), [2, 5, 8]),
        (FloatDistribution(0.5, 1.5, step=0.5), [0.5, 1.0, 1.5]),
        (FloatDistribution(0.5, 0.5), [0.5]),
        (IntDistribution(1, 5000), None),
        (FloatDistribution(0, 1), None),
    ],
)
def test_the_values_of_a_parameter_are_listed_where_they_are_few(distribution, values):
    assert values_of(distribution) == values
    assert values is None or number_of_values(distribution) == len(values)
