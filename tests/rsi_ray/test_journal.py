"""The journal of a study, read by Optuna's own backend beside ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from rsi_ray.journal import StudyStorage, one_write

STATES = [None, *[(state,) for state in TrialState], (TrialState.RUNNING, TrialState.COMPLETE)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.log"


def ours(path: Path) -> optuna.Study:
    return optuna.create_study(storage=StudyStorage(path), study_name="s", load_if_exists=True)


def optunas(path: Path) -> optuna.Study:
    backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
    return optuna.load_study(storage=JournalStorage(backend), study_name="s")


def told(study: optuna.Study) -> list[tuple[int, dict[str, float], str, float | None, dict[str, str]]]:
    return [
        (t.number, t.params, t.state.name, t.values[0] if t.values else None, t.user_attrs)
        for t in study.get_trials()
    ]


def asked(study: optuna.Study, between: Callable[[], object] = lambda: None) -> optuna.Trial:
    with one_write(study):
        trial = study.ask()
        trial.suggest_int("width", 1, 9)
        between()
        trial.suggest_float("rate", 0.1, 1.0)
    return trial


def test_optuna_reads_every_trial_as_we_do_from_a_file_that_both_write(path):
    study = ours(path)
    other = optunas(path)
    first = asked(study, lambda: other.set_user_attr("note", "by another process"))
    assert set(first.params) == {"width", "rate"}
    assert study.user_attrs == {"note": "by another process"}
    second = asked(study, lambda: other.add_trial(optuna.trial.create_trial(value=7.0)))
    first.set_user_attr("seen", "yes")
    for trial, value in ((second, 2.0), (first, 1.0)):
        study.tell(trial, value)
    third = asked(study)
    other.enqueue_trial({"width": 3, "rate": 0.5})
    assert asked(study).params == {"width": 3, "rate": 0.5}
    assert [row[0] for row in told(study)] == [0, 1, 2, 3, 4]
    assert third.number == 3
    assert told(study) == told(other) == told(optunas(path)) == told(ours(path))


def test_trials_in_a_state_are_those_that_optuna_finds(path):
    study = ours(path)
    other = optunas(path)
    trials = []
    for step in range(12):
        if step % 3 == 0:
            study.enqueue_trial({"width": step % 9 + 1})
        if step % 4 == 0:
            other.add_trial(optuna.trial.create_trial(state=TrialState.WAITING))
        if step % 2 == 0:
            trials.append(asked(study))
        elif len(trials) > 1:
            study.tell(trials.pop(0), state=TrialState.FAIL if step % 3 else TrialState.PRUNED)
        for states in STATES:
            found = study.get_trials(deepcopy=False, states=states)
            assert found == other.get_trials(deepcopy=False, states=states)
    assert study.get_trials(states=(TrialState.WAITING,))
    unfinished = [trial._trial_id for trial in study.get_trials() if not trial.state.is_finished()]
    assert study._storage._unfinished == {study._study_id: unfinished}


def test_the_parameters_of_an_ask_are_one_write_that_a_killed_driver_leaves_whole(path):
    study = ours(path)
    before = path.read_bytes()
    seen = []
    trial = asked(study, lambda: seen.append(path.read_bytes().count(b"\n")))
    assert seen == [before.count(b"\n") + 1]
    assert optunas(path).trials[0].params == trial.params


class Noting(optuna.samplers.RandomSampler):
    """Notes what it expects of each trial that it proposes."""

    def infer_relative_search_space(self, study, trial):
        study._storage.set_trial_system_attr(trial._trial_id, "expected", 0.5)
        return {}


def test_what_a_sampler_notes_in_an_ask_is_in_the_same_write_and_does_not_wait_for_the_disk(
    path, monkeypatch
):
    study = ours(path)
    study.sampler = Noting(seed=0)
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", waited.append)
    seen = []
    asked(study, lambda: seen.append(path.read_bytes().count(b"\n")))
    assert (seen, waited) == ([2], [])
    assert study.trials[0].system_attrs == optunas(path).trials[0].system_attrs == {"expected": 0.5}
    assert told(study) == told(optunas(path))


def test_parameters_that_were_suggested_are_written_whatever_ends_the_ask(path):
    study = ours(path)
    with pytest.raises(ZeroDivisionError):
        asked(study, lambda: 1 / 0)
    assert set(optunas(path).trials[0].params) == {"width"}
    assert told(study) == told(optunas(path))


def test_only_an_ask_does_not_wait_for_the_disk(path, monkeypatch):
    study = ours(path)
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", waited.append)
    trial = asked(study)
    assert waited == []
    trial.set_user_attr("record", "x")
    study.tell(trial, 1.0)
    study.enqueue_trial({"width": 3})
    assert len(waited) == 3


def test_a_line_that_a_crash_left_unfinished_is_cut_off(path):
    study = ours(path)
    study.tell(asked(study), 1.0)
    whole = told(study)
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"study_id":0,"dat' + 9_999 * b"x")
    again = ours(path)
    assert told(again) == whole
    again.tell(asked(again), 2.0)
    assert told(again) == told(optunas(path)) == told(study)
    assert len(told(again)) == 2
    assert path.read_bytes().endswith(b"\n")


class Failing:
    """A call that fails a few times before it does what it should."""

    def __init__(self, call: Callable[..., Any], *, fails: Callable[..., bool] = lambda *_: True) -> None:
        self._call, self._fails, self.failures = call, fails, 3

    def __get__(self, instance: object, owner: type) -> Callable[..., Any]:
        return partial(self, instance)

    def __call__(self, *arguments: Any) -> Any:
        if self.failures and self._fails(*arguments):
            self.failures -= 1
            raise OSError(5, "Input/output error")
        return self._call(*arguments)


@pytest.mark.parametrize("at", ["open", "fsync"])
def test_a_write_that_a_storage_fails_in_the_middle_is_in_the_file_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: str
):
    study = ours(path)
    trial = asked(study)
    monkeypatch.setattr("rsi_ray.patience.FIRST_PAUSE", 0.001)
    failing = {
        "open": Failing(Path.open, fails=lambda *given: given[1:] == ("r+b",)),
        "fsync": Failing(os.fsync),
    }[at]
    monkeypatch.setattr(Path if at == "open" else os, at, failing)
    study.tell(trial, 1.0)
    monkeypatch.undo()
    assert failing.failures == 0
    assert told(optunas(path)) == told(study) == told(ours(path))
    assert len(told(study)) == 1


def test_a_lock_that_somebody_took_for_dead_meanwhile_keeps_nobody_waiting(path: Path):
    study = ours(path)
    trial = asked(study)
    release = JournalFileOpenLock.release

    def stolen(lock: JournalFileOpenLock) -> None:
        release(lock)
        release(lock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JournalFileOpenLock, "release", stolen)
        study.tell(trial, 1.0)
    assert len(told(ours(path))) == 1
