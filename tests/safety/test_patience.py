import shutil
import sqlite3
from contextlib import nullcontext

import cloudpickle
import pytest

from bench.disk_faults import may_freeze, read_only
from safety import Allow, Deny, GovernorUnreachable, LeaseLost, Ledger, LedgerError, Report, Usage
from safety.errors import LedgerUnavailable
from safety.patience import RETRY_SECONDS, SILENCE_SECONDS, Patient
from tests.safety.fakes import FakeAuthority, claim, limits, measured, request


class Seconds:
    """A clock that a sleep moves, and what a test lets happen at a moment."""

    def __init__(self):
        self.now, self.then = 0.0, lambda now: None

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.then(self.now)


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def authority():
    return FakeAuthority(renewals=[15_000])


@pytest.fixture
def stop():
    return []


@pytest.fixture
def patient(authority, seconds, stop):
    return Patient(authority, lambda: bool(stop), seconds, seconds.sleep)


REPORT = Report(score=0.5, domains={}, usage=Usage())
QUESTIONS = {
    "settle": (1, 1, Usage()),
    "report": ("s/1", REPORT),
    "void": ("s/1", "why"),
    "fail": ("s", "s/1", "why"),
    "pulse": ("s",),
}
OTHERS = {
    "admit": (request(),),
    "readmit": (request(),),
    "activate": ("s/1", "d1", "w1", None),
    "confirm": (1, 1, measured(claim())),
    "observe": (1, 1, 0),
    "renew": (1, 1),
    "state": ("s",),
}


def answer_at(authority, moment):
    def then(now):
        if now >= moment:
            authority.silent = None

    return then


@pytest.mark.parametrize("error", [GovernorUnreachable("silent"), LedgerUnavailable("locked")])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_of_a_driver_waits_for_its_answer(patient, authority, seconds, question, error):
    authority.silent, seconds.then = error, answer_at(authority, 30)
    answer = getattr(patient, question)(*QUESTIONS[question])
    assert seconds.now == 30
    assert len(authority.asked) == 30 / RETRY_SECONDS + 1
    assert answer == {"report": Allow(), "pulse": "open"}.get(question)


@pytest.mark.parametrize("question", OTHERS)
def test_a_question_that_knows_what_silence_means_is_asked_once(patient, authority, seconds, question):
    answer = getattr(patient, question)(*OTHERS[question])
    assert answer == getattr(FakeAuthority(renewals=[15_000]), question)(*OTHERS[question])
    authority.silent = GovernorUnreachable("silent")
    with pytest.raises(GovernorUnreachable):
        getattr(patient, question)(*OTHERS[question])
    assert seconds.now == 0


def test_a_verdict_is_waited_for(patient, authority, seconds, monkeypatch):
    answers = [GovernorUnreachable("silent"), Deny("rule", "why")]

    def verdict(_key):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(authority, "verdict", verdict)
    assert patient.verdict("s/1") == Deny("rule", "why")
    assert seconds.now == RETRY_SECONDS


@pytest.mark.parametrize("error", [LeaseLost("stale"), LedgerError("no such sweep"), ZeroDivisionError()])
def test_a_refusal_is_an_answer(patient, authority, seconds, error):
    authority.silent = error
    with pytest.raises(type(error)):
        patient.settle(1, 1, Usage())
    assert seconds.now == 0


@pytest.mark.parametrize("error", [GovernorUnreachable("silent"), LedgerUnavailable("silent")])
def test_a_standstill_is_told_once_and_how_long_it_was_when_it_is_over(
    patient, authority, seconds, caplog, error
):
    authority.silent, seconds.then = error, answer_at(authority, 30)
    patient.pulse("s")
    patient.pulse("s")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert caplog.messages == ["the sweep stands still: silent", "the sweep goes on after 30 s"]
    authority.silent, seconds.then = error, answer_at(authority, 40)
    patient.settle(1, 1, Usage())
    assert caplog.messages[2:] == ["the sweep stands still: silent", "the sweep goes on after 10 s"]


@pytest.mark.parametrize("admits", ["admit", "readmit"])
def test_admissions_that_hold_are_of_the_same_standstill(patient, authority, seconds, caplog, admits):
    authority.silent = GovernorUnreachable("silent")
    for _ in range(9):
        with pytest.raises(GovernorUnreachable):
            getattr(patient, admits)(request())
    seconds.then = answer_at(authority, 5)
    patient.pulse("s")
    assert getattr(patient, admits)(request()) == Allow()
    assert caplog.messages == ["the sweep stands still: silent", "the sweep goes on after 5 s"]


def test_an_answer_that_needs_no_writing_is_no_end_of_a_standstill(patient, authority, caplog):
    authority.silent = LedgerUnavailable("full")
    with pytest.raises(LedgerUnavailable):
        patient.admit(request())
    authority.silent = None
    patient.report("s/1", REPORT)
    assert caplog.messages == ["the sweep stands still: full"]
    patient.admit(request())
    assert caplog.messages[1:] == ["the sweep goes on after 0 s"]


def test_a_standstill_is_not_pickled(patient, authority, caplog):
    authority.silent = GovernorUnreachable("silent")
    with pytest.raises(GovernorUnreachable):
        patient.admit(request())
    authority.silent = None
    cloudpickle.loads(cloudpickle.dumps(patient)).pulse("s")
    assert caplog.messages == ["the sweep stands still: silent"]


def test_patience_has_an_end(patient, authority, seconds):
    authority.silent = GovernorUnreachable("silent")
    with pytest.raises(GovernorUnreachable):
        patient.pulse("s")
    assert seconds.now == SILENCE_SECONDS


def test_who_asks_for_the_end_ends_the_patience(patient, authority, seconds, stop):
    authority.silent = GovernorUnreachable("silent")
    seconds.then = lambda now: stop.append(now) if now >= 7 else None
    with pytest.raises(GovernorUnreachable):
        patient.pulse("s")
    assert seconds.now == 7


def test_it_is_pickled_with_what_restored_plugins_hold(authority):
    back = cloudpickle.loads(cloudpickle.dumps(Patient(authority, lambda: False)))
    assert back.pulse("s") == "open"


def test_a_ledger_that_is_locked_for_too_long_is_unavailable_and_answers_when_it_is_not(
    ledger, url, monkeypatch
):
    monkeypatch.setattr("safety.database.BUSY_TIMEOUT_MS", 50)
    impatient = Ledger(url)
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable, match="database is locked"):
        impatient.pulse("s")
    other.execute("ROLLBACK")
    assert impatient.pulse("s") == "open"
    impatient.close()
    other.close()


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.skipif(not may_freeze(), reason="no file may be made read-only for root here")
def test_a_ledger_that_was_opened_read_only_is_opened_anew(tmp_path, clock, together):
    left = left_by_one_killed(tmp_path, clock)
    with read_only(left):
        opened = Ledger(f"sqlite:///{left}", clock.clock())
        for _ in range(2):
            refused = pytest.raises(LedgerUnavailable, match="attempt to write a readonly database")
            with refused, opened.together() if together else nullcontext():
                opened.pulse("s")
    assert opened.pulse("s") == "open"
    opened.close()


def left_by_one_killed(folder, clock):
    """A ledger's file as a process leaves it that could not close it, with its log and its index."""
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}", clock.clock())
    ledger.open_sweep("s", limits(cluster={"trials": 10}))
    (folder / "left").mkdir()
    for file in folder.glob("ledger.db*"):
        shutil.copy(file, folder / "left")
    ledger.close()
    return folder / "left" / "ledger.db"
