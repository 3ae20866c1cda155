import threading
from contextlib import contextmanager

import pytest

from safety import Allow, LeaseLost, LedgerError, SafetyError, Usage, group_commit
from safety.group_commit import GroupCommit
from tests.safety.databases import deafen, raw
from tests.safety.fakes import amounts, kinds, request


@pytest.fixture
def gate():
    """Holds a transaction open until it is set, so that calls gather behind it."""
    return threading.Event()


@pytest.fixture
def group(ledger, gate):
    gate.set()
    made = GroupCommit(ledger, before=lambda: gate.wait(10))
    yield made
    gate.set()
    made.close()


def gathered(group, gate, *calls):
    """Ask for all of these within one transaction."""
    gate.clear()
    first = group.ask("ledger_url", ())
    answers = [group.ask(method, arguments) for method, arguments in calls]
    gate.set()
    first.exception(10)
    return answers


def test_calls_that_come_together_share_a_transaction(ledger, group, gate, monkeypatch):
    begun = []
    transaction = ledger.together
    monkeypatch.setattr(ledger, "together", lambda: begun.append(1) or transaction())
    answers = gathered(group, gate, *(("admit", (request(f"s/{i}"),)) for i in range(9)))
    assert [answer.result(10) for answer in answers] == [Allow()] * 9
    assert len([kind for kind in kinds(ledger) if kind == "reserve"]) == 9
    assert 1 <= len(begun) <= 3


def test_a_transaction_takes_so_many_calls_and_the_next_one_the_others(ledger, group, gate, monkeypatch):
    monkeypatch.setattr(group_commit, "MOST", 3)
    begun = []
    transaction = ledger.together
    monkeypatch.setattr(ledger, "together", lambda: begun.append(1) or transaction())
    answers = gathered(group, gate, *(("admit", (request(f"s/{i}"),)) for i in range(9)))
    assert [answer.result(10) for answer in answers] == [Allow()] * 9
    assert len(begun) >= 3


def test_a_question_that_somebody_cancels_keeps_no_other_from_its_answer(ledger, group, gate):
    gate.clear()
    first = group.ask("ledger_url", ())
    given_up, last = group.ask("admit", (request("s/1"),)), group.ask("admit", (request("s/2"),))
    assert given_up.cancel()
    gate.set()
    assert (first.result(10), last.result(10)) == (ledger.url, Allow())
    assert ledger.lease("s/1") is None


def test_a_call_that_fails_is_undone_alone(ledger, group, gate):
    first, lost, last = gathered(
        group, gate,
        ("admit", (request("s/1"),)),
        ("activate", ("s/nothing", "d1", "w1", None)),
        ("admit", (request("s/2"),)),
    )  # fmt: skip
    assert (first.result(10), last.result(10)) == (Allow(), Allow())
    with pytest.raises(LeaseLost, match="nothing was reserved"):
        lost.result(10)
    assert amounts(ledger, "trials") == (2, 0, 0)


def test_what_a_failing_call_wrote_before_it_failed_is_undone(ledger, group, gate, monkeypatch):
    def written_then_lost(key, digest, holder):
        with ledger._transaction() as connection:
            connection.exec_driver_sql("UPDATE budgets SET held = held + 1 WHERE resource = 'trials'")
            raise LeaseLost("no")

    monkeypatch.setattr(ledger, "activate", written_then_lost)
    group.ask("admit", (request("s/1"),)).result(10)
    lost, kept = gathered(group, gate, ("activate", ("s/1", "d1", "w1", None)), ("admit", (request("s/2"),)))
    with pytest.raises(LeaseLost):
        lost.result(10)
    assert kept.result(10) == Allow()
    assert amounts(ledger, "trials") == (2, 0, 0)


def test_where_the_transaction_fails_every_call_of_it_is_told_and_none_has_happened(
    ledger, group, gate, monkeypatch
):
    committed = ledger.together

    @contextmanager
    def full():
        with committed():
            yield
            raise LedgerError("disk full")

    monkeypatch.setattr(ledger, "together", full)
    answers = gathered(group, gate, ("admit", (request("s/1"),)), ("admit", (request("s/2"),)))
    for answer in answers:
        with pytest.raises(LedgerError, match="disk full"):
            answer.result(10)
    monkeypatch.undo()
    assert amounts(ledger, "trials") == (0, 0, 0)
    assert group.ask("admit", (request("s/1"),)).result(10) == Allow()


def given_up(ledger):
    """What SQLite does by itself on a full disk."""
    with ledger._transaction() as connection:
        connection.connection.cursor().execute("ROLLBACK")
        raise LedgerError("disk full")


def test_a_transaction_that_the_database_has_given_up_takes_no_more_calls(ledger):
    def calls():
        with ledger.together():
            ledger.reserve(request("s/1"))
            with pytest.raises(LedgerError):
                given_up(ledger)
            with pytest.raises(LedgerError):
                ledger.reserve(request("s/2"))

    with pytest.raises(LedgerError, match="disk full"):
        calls()
    assert amounts(ledger, "trials") == (0, 0, 0)
    assert ledger.reserve(request("s/3")) == Allow()


def test_an_audit_that_takes_no_rows_denies_and_answers_again_when_it_does(ledger, group, url):
    with raw(url) as database:
        deafen(database)
        with pytest.raises(LedgerError, match="audit is full"):
            group.ask("admit", (request("s/1"),)).result(10)
        database.execute("DROP TRIGGER deaf" + ("" if url.startswith("sqlite") else " ON audit"))
    assert group.ask("admit", (request("s/1"),)).result(10) == Allow()


@pytest.mark.parametrize(
    ("method", "expected"),
    [("_judged", "no question"), ("nothing", "AttributeError"), ("admit", "TypeError")],
)
def test_what_is_no_question_is_answered_by_an_error(group, method, expected):
    with pytest.raises(SafetyError, match=expected):
        group.ask(method, ()).result(10)
    assert group.ask("admit", (request("s/1"),)).result(10) == Allow()


def test_answers_come_in_the_order_of_the_questions(ledger, group):
    asked = [("admit", (request("s/1"),)), ("activate", ("s/1", "d1", "w1", None))]
    allowed, grant = (group.ask(*call) for call in asked)
    assert allowed.result(10) == Allow()
    held = grant.result(10)
    group.ask("settle", (held.lease, held.fence, Usage(reports=1))).result(10)
    assert ledger.lease("s/1").state == "settled"


def test_its_owner_is_called_before_and_after_transactions_without_calls_too(ledger):
    told, twice = [], threading.Event()

    def after():
        told.append("after")
        if len(told) >= 4:
            twice.set()

    made = GroupCommit(ledger, before=lambda: told.append("before"), after=after)
    assert twice.wait(10)
    made.close()
    assert told[:4] == ["before", "after"] * 2


def test_an_owner_that_raises_denies_and_the_next_call_is_answered(ledger):
    faults = [LedgerError("killed by a file")]

    def before():
        if faults:
            raise faults.pop()

    made = GroupCommit(ledger, before=before)
    asked = made.ask("admit", (request("s/1"),))
    with pytest.raises(LedgerError, match="killed by a file"):
        asked.result(10)
    assert made.ask("admit", (request("s/1"),)).result(10) == Allow()
    made.close()
