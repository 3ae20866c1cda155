"""The values of a sweep's metrics."""

import math

import optuna
import pytest

from rsi_ray.device_metrics import METRICS as OF_WORKER
from rsi_ray.device_metrics import ToldMemory
from rsi_ray.metrics import METRICS, MOST_CHARACTERS, MOST_TRAINING, Seen, of_run
from rsi_ray.records import RECORD, Verdict
from safety.metrics import METRICS as OF_LEDGER


@pytest.fixture
def study():
    """Two candidates that were trained to the end, a refused one, one that waits, and one in training."""
    found = optuna.create_study(direction="maximize")
    for score in (0.25, 0.75):
        ended(found, Verdict.MEASURED, score)
    ended(found, Verdict.REFUSED, None)
    found.ask()
    found.ask()
    return found


def ended(study, verdict, score):
    trial = study.ask()
    trial.set_user_attr(RECORD, {"verdict": verdict, "score": score})
    state = optuna.trial.TrialState.COMPLETE if score is not None else optuna.trial.TrialState.PRUNED
    study.tell(trial, score, state=state)


def seen(result, trial="1f_1", *, is_training=True, **config):
    return Seen(trial=trial, config=config, result=result, is_training=is_training)


def values(study, results=(), live=(4,)):
    trials = [seen(result, is_training=False) for result in results]
    return told(of_run("loop", "loop-g3", study, live, trials))


def told(samples):
    found = list(samples)
    for sample in found:
        assert tuple(sample.labels) == METRICS[sample.name].labels
        assert (sample.labels["sweep"], sample.labels["run"]) == ("loop", "loop-g3")
    return {(one.name, *list(one.labels.values())[2:]): one.value for one in found}


def test_candidates_are_counted_by_what_became_of_them(study):
    found = values(study)
    assert {state[1]: count for state, count in found.items() if state[0] == "rsi_trials"} == {
        "measured": 2,
        "refused": 1,
        "waiting": 1,
        "training": 1,
    }


def test_the_best_score_is_of_those_that_were_trained_to_the_end(study):
    ended(study, Verdict.STOPPED, 0.9)
    assert values(study)["rsi_best_score",] == 0.75


def test_the_score_is_the_one_that_was_reported_last(study):
    results = [
        {"score": 0.5, "timestamp": 20},
        {"score": 0.4, "timestamp": 30},
        {"score": 0.3, "timestamp": 10},
        {"score": math.nan, "timestamp": 40},
        {},
    ]
    assert values(study, results)["rsi_score",] == 0.4


def test_what_is_in_training_is_named_by_its_trial_its_spec_and_its_process(study):
    result = {"training_iteration": 3, "pid": 7, "node_ip": "10.0.0.2", "score": 0.5}
    trials = [
        seen(result, "1f_1", layers=2, width=64),
        seen({}, "1f_2", layers=3, word="x" * 1000),
        seen(result, "1f_3", is_training=False, layers=4),
    ]
    found = told(of_run("loop", "loop-g3", study, (), trials))
    named = {place[1:]: value for place, value in found.items() if place[0] == "rsi_trial_reports"}
    cut = ("layers3 " + "x" * 1000)[:MOST_CHARACTERS]
    assert named == {("1f_1", "layers2 width64", "7@10.0.0.2"): 3, ("1f_2", cut, ""): 0}


def test_of_very_many_in_training_not_all_have_a_curve(study):
    trials = [seen({}, f"1f_{number}") for number in range(MOST_TRAINING + 5)]
    found = told(of_run("loop", "loop-g3", study, (), trials))
    assert sum(place[0] == "rsi_trial_reports" for place in found) == MOST_TRAINING


def test_a_run_without_a_score_tells_none():
    empty = optuna.create_study()
    assert values(empty) == {}


def test_no_metric_has_the_name_of_another():
    assert not (set(METRICS) | set(OF_WORKER)) & set(OF_LEDGER)


# --- GPU memory


class Memory:
    grown = began = 0

    def begin(self):
        self.began += 1

    def grown_bytes(self):
        return self.grown


def test_a_gpus_memory_is_told_beside_what_was_reserved_when_the_keeper_looks(monkeypatch):
    monkeypatch.setattr("rsi_ray.device_metrics.Exporter", Heard)
    memory = Memory()
    told = ToldMemory(memory, lambda: 1000, "s")
    told.begin()
    assert memory.began == 1
    memory.grown = 700
    assert told.grown_bytes() == 700
    assert told._exporter.heard == [
        ("rsi_gpu_memory_used_bytes", 700, {"sweep": "s"}),
        ("rsi_gpu_memory_reserved_bytes", 1000, {"sweep": "s"}),
    ]


class Heard:
    """What Ray would be told."""

    def __init__(self, metrics, read):
        assert metrics is OF_WORKER
        self._read, self.heard = read, []

    def tell(self):
        self.heard += [(one.name, one.value, one.labels) for one in self._read()]
