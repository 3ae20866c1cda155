"""What the processes of a race do; a module of its own, so that a spawned process can import it."""

import os
import signal
from typing import Any

from safety import Allow, ApprovalRefused, Ledger, Limits, LooserLimits
from safety.approval import Answer
from tests.safety.approvers import answer
from tests.safety.fakes import limits, request

GFLOP = 10**9


def shared(**cluster: int) -> Limits:
    """Limits of a sweep that shares the cluster's budgets."""
    return limits(cluster=cluster)


def race(url: str, sweep: str, amount: int, rounds: int, start: Any, answers: Any) -> None:
    """Ask for an amount of GFLOP again and again, from the moment that all are ready."""
    ledger = Ledger(url)
    start.wait()
    for i in range(rounds):
        verdict = ledger.reserve(
            request(f"{sweep}/{os.getpid()}/{i}", sweep=sweep, train_flops=amount * GFLOP)
        )
        answers.put(
            (sweep, isinstance(verdict, Allow), getattr(verdict, "rule", ""), getattr(verdict, "reason", ""))
        )
    ledger.close()


def open_and_reserve(urls: list[str], sweep: str, start: Any, answers: Any) -> None:
    """Open each of some new files at the same moment as others, with a sweep of one's own."""
    for url in urls:
        start.wait()
        ledger = Ledger(url)
        ledger.open_sweep(sweep, shared(train_flops=3 * GFLOP))
        for i in range(2):
            verdict = ledger.reserve(request(f"{sweep}/{i}", sweep=sweep, train_flops=GFLOP))
            answers.put((url, isinstance(verdict, Allow)))
        ledger.close()


def loosen_and_tighten(url: str, sweep: str, gflop: int, start: Any, answers: Any) -> None:
    """Open a sweep that asks for a budget of its own size."""
    ledger = Ledger(url)
    start.wait()
    try:
        ledger.open_sweep(sweep, shared(train_flops=gflop * GFLOP))
        answers.put((gflop, "opened"))
    except LooserLimits:
        answers.put((gflop, "refused"))


def shut_down(url: str, lineage: str, start: Any, answers: Any) -> None:
    """Shut a lineage down at the same moment as others."""
    ledger = Ledger(url)
    start.wait()
    answers.put(ledger.shut_down(lineage, "fire", "ann").number)
    ledger.close()


def reserve_and_die(url: str, begin: bool) -> None:
    """Take a lease and be killed by a signal that nothing can catch."""
    ledger = Ledger(url)
    ledger.reserve(request())
    if begin:
        ledger.activate("s/1", "d1", "w1")
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_transaction(url: str) -> None:
    """Be killed after the hold was written and before the commit."""
    ledger = Ledger(url)
    with ledger._transaction() as connection:
        connection.exec_driver_sql("UPDATE budgets SET held = held + 1")
        os.kill(os.getpid(), signal.SIGKILL)


def decide_at_once(url: str, said: Answer, start: Any, answers: Any) -> None:
    """One of two operators decides of the one request, at the same moment as the other."""
    _decide(url, {"approve": "ann", "reject": "bob"}[said], said, start, answers)


def decide_as_one(url: str, said: Answer, start: Any, answers: Any) -> None:
    """The same operator decides in two processes."""
    _decide(url, "ann", said, start, answers)


def _decide(url: str, who: str, said: Answer, start: Any, answers: Any) -> None:
    ledger = Ledger(url)
    digest = ledger.requests()[-1][0].request.digest
    start.wait()
    try:
        answer(ledger, digest, who, said)
        answers.put((said, "taken"))
    except ApprovalRefused:
        rules = [entry.rule for _, entry, _ in ledger.audit() if entry.kind == "deny"]
        answers.put((said, rules[-1]))
    ledger.close()
