"""The parts of the learner: rows and features, presence, members of the predictor, controller, state file."""

from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from safetensors.numpy import save_file

from rsi_ray.samplers.history import BEST_KEPT, History
from rsi_ray.samplers.meta_learner import MetaLearner
from rsi_ray.samplers.meta_learner.ceilings import Ceilings
from rsi_ray.samplers.meta_learner.controller import Controller
from rsi_ray.samplers.meta_learner.drafts import neighbours
from rsi_ray.samplers.meta_learner.evidence import LATEST, Rows
from rsi_ray.samplers.meta_learner.fields import Field, Fields
from rsi_ray.samplers.meta_learner.learner import WRITTEN
from rsi_ray.samplers.meta_learner.predictor import FITTED, Forecast, Predictor, fitted
from rsi_ray.samplers.meta_learner.presence import Presence
from rsi_ray.samplers.meta_learner.process import Process, kernel_of
from rsi_ray.samplers.meta_learner.rank_net import RankNets
from rsi_ray.samplers.meta_learner.screen import ANYWHERE, CLIMBERS, CLOSE, MIXED, NEAR, PARENTS, ROUNDS
from rsi_ray.samplers.meta_learner.standings import standings, standings_of_stopped
from rsi_ray.samplers.meta_learner.state import read

OPS = CategoricalDistribution(("conv", "pool", "none"))
RATE = FloatDistribution(1e-4, 1.0, log=True)
WIDTH = IntDistribution(16, 512)
SPACE = {"op_0": OPS, "op_1": OPS, "rate": RATE, "width": WIDTH, "heads": CategoricalDistribution((2, 4, 8))}


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("distribution", "value", "place"),
    [
        (OPS, "pool", 1.0),
        (CategoricalDistribution((2, 4, 8)), 4, 0.5),
        (CategoricalDistribution((8, 2, 4)), 2, 1.0),
        (RATE, 0.01, 0.5),
        (IntDistribution(0, 10, step=5), 10, 1.0),
        (IntDistribution(0, 1000), 250, 0.25),
    ],
)
def test_a_value_has_a_place_and_the_place_that_value(distribution, value, place):
    field = Field("x", distribution)
    assert field.place(value) == pytest.approx(place)
    told = field.value(field.place(value))
    assert told == (value if isinstance(value, str) else pytest.approx(value))


def test_a_value_that_a_parameter_has_not_got_is_the_nearest_number_or_no_place():
    assert Field("x", WIDTH).place(9000) == 1.0
    assert math.isnan(Field("x", OPS).place("new"))


def test_rows_are_configurations_without_what_is_absent():
    fields = Fields.of({**SPACE, "only": CategoricalDistribution(("one",))})
    params = {"op_0": "none", "rate": 0.01, "width": 40}
    row = fields.row(params)
    assert np.isnan(row).tolist() == [False, True, False, False, True]
    told = fields.params(row)
    assert told == {**params, "rate": pytest.approx(0.01)}


def test_parameters_that_differ_in_a_number_are_a_family_with_features_of_their_sum():
    fields = Fields.of(SPACE)
    assert fields.families == [[0, 1]]
    one, other = fields.features(
        np.stack(
            [
                fields.row({**chosen, "rate": 0.1, "width": 99, "heads": 2})
                for chosen in (
                    {"op_0": "conv", "op_1": "pool"},
                    {"op_0": "pool", "op_1": "conv"},
                )
            ]
        )
    )
    family = fields.blocks == fields.blocks[-1]
    assert one[family] == pytest.approx(other[family])
    assert not np.allclose(one, other)


def test_near_numbers_have_alike_features_and_choices_have_not():
    fields = Fields.of({"rate": RATE, "op": OPS})
    rows = np.array([[0.5, 0.0], [0.55, 0.0], [1.0, 0.0], [0.5, 1.0], [0.5, 2.0]])
    features = fields.features(rows)
    apart = np.linalg.norm(features - features[0], axis=1)
    assert 0 < apart[1] < apart[2]
    assert apart[3] == pytest.approx(apart[4])


def test_presence_is_learned_from_what_was_asked_after_which_answers():
    # the kind decides on the second, a depth of more than a half on the third
    draws = rng()
    whole = np.column_stack([draws.integers(3, size=40), draws.random(40), draws.integers(3, size=40) / 2])
    whole = np.column_stack([whole, draws.random(40)])
    rows = whole.copy()
    rows[whole[:, 0] != 1, 1] = np.nan
    rows[whole[:, 2] < 1, 3] = np.nan
    presence = Presence.of(rows, np.array([True, False, False, False]))
    assert np.array_equal(presence.applied(whole), rows, equal_nan=True)


def test_rows_that_the_gates_do_not_explain_are_counted():
    rows = np.array([[0.0, 0.5], [0.0, 0.7], [1.0, np.nan], [2.0, np.nan]])
    presence = Presence.of(rows, np.array([True, False]))
    assert presence.unexplained(rows) == 0
    more = np.array([[1.0, 0.5], [0.0, np.nan], [7.0, np.nan]])
    assert presence.unexplained(np.concatenate([rows, more])) == 2


def test_a_space_without_conditions_has_no_gates():
    rows = rng().random((9, 3))
    presence = Presence.of(rows, np.zeros(3, dtype=bool))
    assert presence.applied(rows) is rows


def test_neighbours_differ_in_one_field_and_are_all_that_do():
    fields = Fields.of(SPACE)
    rows = fields.draw(rng(), 3)
    near = neighbours(fields, rows, 100, rng()).reshape(3, -1, len(fields))
    changed = near != rows[:, None]
    assert (changed.sum(axis=2) == 1).all()
    for row, found in zip(rows, near, strict=True):
        ops = found[found[:, 0] != row[0], 0]
        assert sorted(ops) == sorted({0.0, 1.0, 2.0} - {row[0]})
        heads = found[found[:, 4] != row[4], 4]
        assert sorted(heads) == sorted({0.0, 0.5, 1.0} - {row[4]})
    assert neighbours(fields, rows, 5, rng()).shape == (15, len(fields))


def additive(fields, rows):
    """A score of one operation in any place, and of the middle of a rate."""
    return (rows[:, 0] == 1) + (rows[:, 1] == 1) - 3 * np.abs(rows[:, 2] - 0.5)


def test_a_process_learns_what_matters_from_a_few_rows():
    fields, draws = Fields.of(SPACE), rng()
    rows = fields.draw(draws, 40)
    x, y, none = fields.features(rows), additive(fields, rows), np.zeros(40)
    process = Process(fields.blocks)
    for _ in range(60):
        process.improve(x, y - y.mean(), none)
    process.fit(x, y - y.mean(), none)
    others = fields.draw(draws, 200)
    mean, doubt, _ = process.predict(fields.features(others))
    assert np.corrcoef(mean, additive(fields, others))[0, 1] > 0.9
    weights = dict(zip(fields.labels, process.scales.weights, strict=True))
    assert weights["rate/0"] + weights["rate/1"] > weights["width/0"] + weights["width/1"]
    assert process.predict(x)[1].mean() < doubt.mean()


def test_a_process_climbs_its_evidence():
    fields = Fields.of(SPACE)
    rows = fields.draw(rng(), 12)
    x, y, none = fields.features(rows), additive(fields, rows), np.zeros(12)
    process = Process(fields.blocks)

    def evidence():
        rows = x * process._root(process.scales)
        whole = kernel_of(process.scales, rows, rows).whole + (process.scales.noise + 1e-6) * np.eye(12)
        return -0.5 * y @ np.linalg.solve(whole, y) - 0.5 * np.linalg.slogdet(whole)[1]

    gradient = process._gradient(x, y, none)
    for index in (0, 2, len(fields.labels) - 1, *range(-6, -1)):
        before, step = process.log_scales.copy(), 1e-5
        process.log_scales[index] += step
        up = evidence()
        process.log_scales = before.copy()
        process.log_scales[index] -= step
        down = evidence()
        process.log_scales = before
        assert gradient[index] == pytest.approx((up - down) / (2 * step), rel=1e-3, abs=1e-5)


def test_what_another_study_says_counts_less_where_it_is_wrong():
    fields = Fields.of(SPACE)
    rows = fields.draw(rng(), 60)
    x, y = fields.features(rows), additive(fields, rows)
    foreign = np.arange(60) < 30
    wrong = np.where(foreign, -y, y)
    process = Process(fields.blocks)
    for _ in range(80):
        process.improve(x, wrong, foreign.astype(float))
    process.fit(x, wrong, foreign.astype(float))
    assert process.scales.foreign > 1
    assert np.corrcoef(process.predict(x)[0][~foreign], y[~foreign])[0, 1] > 0.8


def test_networks_learn_an_order_from_pairs():
    fields = Fields.of(SPACE)
    rows = fields.draw(rng(), 80)
    nets = RankNets(len(fields.blocks), rng())
    nets.improve(fields.features(rows), additive(fields, rows), 300)
    others = fields.draw(rng(), 200)
    told = nets.predict(fields.features(others))
    assert np.corrcoef(told.mean(axis=0), additive(fields, others))[0, 1] > 0.8
    assert (told.std(axis=0) > 0).all()


class Counted(dict[str, object]):
    """Answers of a trial; how often they were looked at."""

    looks = 0

    def __contains__(self, name):
        Counted.looks += 1
        return super().__contains__(name)


def history_of(count):
    history = History()
    for number in range(count):
        trial = create_trial(
            params={"rate": 0.001 + 0.9 * number / count}, distributions={"rate": RATE}, value=1.0
        )
        trial.number = number
        trial._params = Counted(trial.params)
        history.complete.append(trial)
    history.best = history.complete[:50]
    return history


def test_the_rows_of_a_long_study_are_made_once_and_no_more_are_looked_at_than_of_a_shorter_one():
    fields, directions = Fields.of({"rate": RATE}), [StudyDirection.MAXIMIZE]
    looked = []
    for count in (1000, 4000):
        rows, history = Rows(fields, []), history_of(count)
        Counted.looks = 0
        first = rows.evidence(history, directions)
        looked.append((Counted.looks, len(first.measured)))
        again = rows.evidence(history, directions)
        assert Counted.looks == looked[-1][0]
        assert np.array_equal(first.measured, again.measured)
    assert looked == [(BEST_KEPT + LATEST, BEST_KEPT + LATEST)] * 2


def predicted_rows(learner, history):
    """Rows that the processes predict in one ask."""
    seen = []
    predictor = learner._screen.predictor
    forecast = predictor.forecast
    predictor.forecast = lambda x: seen.append(len(x)) or forecast(x)
    learner.learn(history, [StudyDirection.MAXIMIZE])
    learner.propose(1, [], 0)
    predictor.forecast = forecast
    return sum(seen)


def test_an_ask_compares_a_bounded_number_of_drafts_on_a_bounded_number_of_rows():
    drafts = ANYWHERE + MIXED + NEAR * PARENTS + ROUNDS * CLIMBERS * CLOSE + WRITTEN + 1
    for count in (400, 1500):
        learner, history = MetaLearner(0), history_of(count)
        learner.learn(history, [StudyDirection.MAXIMIZE])
        assert 0 < predicted_rows(learner, history) <= drafts
        for process in learner._screen.predictor.processes:
            assert len(process._fit.rows) == FITTED


def test_a_member_that_foretold_the_order_counts_more():
    predictor = Predictor(Fields.of(SPACE), {}, rng())
    column = np.zeros((3, 1))
    told = Forecast(np.array([[-1.0], [1.0], [-1.0]]), column + 0.5, column, predictor.weights())
    for _ in range(4):
        predictor.judge(told, 1.0, np.array([-0.5, 0.0, 0.5]))
    assert predictor.weights().argmax() == 1


def test_an_improvement_is_expected_where_the_mean_is_high_or_the_doubt_is():
    column = np.zeros((1, 3))
    told = Forecast(np.array([[0.0, 1.0, 0.0]]), np.array([[0.1, 0.1, 1.0]]), column, np.ones(1))
    low, high, doubtful = told.log_improvement(1.5, measured=True)
    assert low < min(high, doubtful)


def test_a_draw_is_of_one_member_which_is_drawn_as_it_counts():
    means, spread = np.repeat([[-5.0], [5.0]], 100, axis=1), np.full((2, 100), 0.5)
    told = Forecast(means, spread, np.zeros_like(spread), np.array([0.25, 0.75]))
    draws = rng()
    drawn = np.array([told.drawn(draws) for _ in range(400)])
    by_second = drawn > 0
    assert (by_second.all(axis=1) | ~by_second.any(axis=1)).all()
    assert by_second.mean() == pytest.approx(0.75, abs=0.07)
    assert (drawn - np.where(by_second, 5.0, -5.0)).std() == pytest.approx(0.5, abs=0.02)


def test_a_process_is_fitted_on_the_best_and_the_latest():
    y = np.zeros(1000)
    y[:20] = 1.0
    rows = fitted(y)
    assert len(rows) == FITTED
    assert set(range(20)) <= set(rows.tolist())
    assert 999 in rows


def test_ceilings_are_learned_from_refusals_alone():
    fields = Fields.of(SPACE)
    rows = fields.draw(rng(), 120)
    over = np.exp(2 * (rows[:, 3] - 0.5) + (rows[:, 4] - 0.5)) - 1
    x = fields.features(rows)
    ceilings = Ceilings(fields.blocks)
    assert (ceilings.log_admitted(x) == 0).all()
    learned, refused = np.arange(120) < 80, over > 0
    for _ in range(5):
        admitted = learned & ~refused
        numbers = np.flatnonzero(admitted).tolist()
        ceilings.learn(x[admitted], numbers, x[learned & refused], over[learned & refused])
    told = np.exp(ceilings.log_admitted(x[~learned]))
    assert ((told < 0.5) == refused[~learned]).mean() > 0.85


def controller_for(fields):
    controller = Controller(0)
    controller.meet(fields)
    return controller


def everything(rows, index):
    return np.zeros(len(rows), dtype=bool)


def test_an_untrained_controller_writes_anything():
    fields = Fields.of(SPACE)
    rows = controller_for(fields).draw(fields, 600, rng(), everything)
    assert np.bincount(rows[:, 0].astype(int)).tolist() == pytest.approx([200, 200, 200], abs=50)
    assert 0.4 < rows[:, 2].mean() < 0.6


def test_a_controller_learns_what_is_rewarded_also_where_one_decision_depends_on_another():
    fields = Fields.of({"a": CategoricalDistribution(("x", "y")), "b": CategoricalDistribution(("x", "y"))})
    controller, draws = controller_for(fields), rng()
    for _ in range(150):
        rows = controller.draw(fields, 32, draws, everything)
        controller.train(fields, rows, (rows[:, 0] != rows[:, 1]).astype(float))
    rows = controller.draw(fields, 200, draws, everything)
    assert (rows[:, 0] != rows[:, 1]).mean() > 0.9


def test_a_decision_follows_from_those_before_it():
    fields = Fields.of({"a": CategoricalDistribution(("x", "y")), "b": CategoricalDistribution(("x", "y"))})
    controller, draws = controller_for(fields), rng()
    for step in range(160):
        rows = controller.draw(fields, 32, draws, everything, {0: float(step % 2)})
        controller.train(fields, rows, (rows[:, 0] == rows[:, 1]).astype(float))
    for given in (0.0, 1.0):
        decided = [controller.decide(fields, {0: given}, draws) for _ in range(40)]
        assert np.mean(np.array(decided) == given) > 0.8


def test_the_sampled_and_the_trained_probabilities_are_the_same():
    fields = Fields.of({"a": OPS, "b": OPS})
    controller, draws = controller_for(fields), rng()
    for _ in range(8):
        rows = controller.draw(fields, 32, draws, everything)
        controller.train(fields, rows, rows[:, 1] - rows[:, 0])
    asked, before, offered, _ = controller._steps(fields, np.array([[0.0, 0.0], [2.0, 0.0]]))
    told = controller.writer(asked, before, offered).exp().detach().numpy()
    rows = controller.draw(fields, 4000, draws, everything)
    assert np.bincount(rows[:, 0].astype(int), minlength=3) / 4000 == pytest.approx(told[0, 0], abs=0.03)
    after = rows[rows[:, 0] == 2, 1].astype(int)
    assert np.bincount(after, minlength=3) / len(after) == pytest.approx(told[1, 1], abs=0.06)


def test_what_was_learned_of_answers_that_stay_is_kept_in_a_new_range():
    fields = Fields.of({"op": OPS})
    controller, draws = controller_for(fields), rng()
    for _ in range(80):
        rows = controller.draw(fields, 32, draws, everything)
        controller.train(fields, rows, (rows[:, 0] == 1).astype(float))
    changed = Fields.of({"op": CategoricalDistribution(("new", "none", "pool")), "more": RATE})
    controller.meet(changed)
    rows = controller.draw(changed, 200, draws, everything)
    assert (rows[:, 0] == 2).mean() > 0.6


def test_equal_scores_stand_equal_and_one_that_was_stopped_stands_by_its_last_step():
    trials = [create_trial(value=value, intermediate_values={1: value}) for value in (1.0, 1.0, 3.0, 2.0)]
    told = standings(trials, [StudyDirection.MAXIMIZE])
    assert told[0] == told[1] == told.min()
    assert told.argmax() == 2
    good, bad, silent = (
        create_trial(state=TrialState.PRUNED, intermediate_values=one) for one in ({1: 2.5}, {1: 0.5}, {})
    )
    of = standings_of_stopped([good, bad, silent], trials, StudyDirection.MAXIMIZE)
    assert of[1] < of[2] < of[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a file of weights", "expected a file that a sampler has saved"),
        (None, "no meta_learner in its header"),
        ('{"format": 1}', "expected a file that a sampler has saved"),
    ],
)
def test_a_file_that_is_no_state_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "state.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file({"x": np.zeros(1)}, path, metadata={"meta_learner": content} if content else None)
    with pytest.raises(ValueError, match=message) as refusal:
        read(path)
    assert "\n" not in str(refusal.value)


def test_a_saved_learner_is_the_same_when_it_is_loaded(tmp_path):
    first = MetaLearner(0)
    first.controller.meet(Fields.of(SPACE))
    first.save(tmp_path / "one.safetensors")
    second = MetaLearner(1)
    second.load(tmp_path / "one.safetensors")
    assert list(second.controller.known) == list(SPACE)
    for name, value in first.controller.tensors().items():
        assert np.array_equal(value, second.controller.tensors()[name])
