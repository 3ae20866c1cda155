"""Real processes on one real SQLite file."""

import multiprocessing
from collections import Counter

import pytest

from safety import Allow, Hold, Ledger, Usage, audit, system_clock
from safety.endings import SWEEP_SILENCE_MS
from tests.safety import racers
from tests.safety.fakes import GFLOP, FakeClock, amounts, request
from tests.safety.racers import shared

pytestmark = pytest.mark.processes

# each is forked from a process that has imported what it needs, and done nothing else
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.safety.racers"])


def run_all(target, arguments):
    """Start one process for each tuple of arguments, let all go at once, and give their answers."""
    start, answers = FORKED.Barrier(len(arguments)), FORKED.SimpleQueue()
    processes = [FORKED.Process(target=target, args=(*each, start, answers)) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)
    found = []
    while not answers.empty():
        found.append(answers.get())
    return found


@pytest.fixture
def real(url):
    """A ledger by this host's own clocks, of 1000 GFLOP in all."""
    ledger = Ledger(url)
    ledger.open_sweep("s", shared(train_flops=1000 * GFLOP))
    yield ledger
    ledger.close()


def test_eight_processes_that_race_for_the_last_percent_get_exactly_what_fits(real, url):
    real.reserve(request("s/most", train_flops=990 * GFLOP))
    answers = run_all(racers.race, [(url, "s", 3, 2)] * 8)
    assert len(answers) == 16
    assert sum(granted for _, granted, _, _ in answers) == 3
    assert amounts(real, "train_gflop") == (999, 0, 0)
    for _, granted, rule, reason in answers:
        if not granted:
            assert rule == "budget.train_gflop"
            assert reason.startswith("cluster budget train_gflop: asked 3, spent 0, held 99")
            assert reason.endswith("cap 1,000")
    assert audit.verify(real.audit()) is None


def test_two_processes_with_two_sweeps_share_the_clusters_budget(real, url):
    real.open_sweep("t", shared(train_flops=1000 * GFLOP))
    answers = run_all(racers.race, [(url, "s", 100, 9), (url, "t", 100, 9)])
    granted = Counter(sweep for sweep, granted, _, _ in answers if granted)
    assert granted["s"] + granted["t"] == 10
    assert amounts(real, "train_gflop") == (1000, 0, 0)
    held = [amounts(real, "train_gflop", f"sweep:{sweep}", sweep)[0] for sweep in ("s", "t")]
    assert held == [100 * granted["s"], 100 * granted["t"]]


def test_processes_that_open_one_new_ledger_at_once_all_have_it(tmp_path):
    urls = [f"sqlite:///{tmp_path / str(i) / 'ledger.db'}" for i in range(10)]
    answers = run_all(racers.open_and_reserve, [(urls, f"s{i}") for i in range(4)])
    assert Counter(answers) == {**{(url, True): 3 for url in urls}, **{(url, False): 5 for url in urls}}


def test_of_sweeps_that_are_opened_at_once_the_tightest_binds(real, url):
    asked = [700, 500, 600, 400]
    answers = run_all(racers.loosen_and_tighten, [(url, f"t{gflop}", gflop) for gflop in asked])
    assert (400, "opened") in answers
    target = next(b.target for b in real.budgets("s") if (b.scope, b.resource) == ("cluster", "train_gflop"))
    assert target == 400


def killed(target, *arguments):
    process = FORKED.Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == -9


def test_a_process_that_is_killed_with_a_reservation_leaves_its_hold_until_it_is_reaped(real, url):
    killed(racers.reserve_and_die, url, False)
    assert real.reap() == 0
    assert amounts(real, "train_gflop") == (10, 0, 0)
    later = Ledger(url, after(SWEEP_SILENCE_MS + 60_000))
    assert later.reap() == 1
    assert amounts(later, "train_gflop") == (0, 0, 0)


def test_a_process_that_is_killed_with_an_active_lease_has_spent_its_hold_and_not_before(real, url):
    killed(racers.reserve_and_die, url, True)
    assert real.reap() == 0
    assert amounts(real, "train_gflop") == (10, 0, 0)
    assert Ledger(url, after(80_000)).reap() == 1
    assert amounts(real, "train_gflop") == (0, 10, 0)


def after(ms):
    """This host's clocks, so much later."""
    now, fake = system_clock(), FakeClock()
    fake.monotonic, fake.boot = now.monotonic_ms() + ms, now.boot
    return fake.clock()


def test_a_process_that_is_killed_before_its_commit_has_changed_nothing(real, url):
    before = real.budgets("s")
    killed(racers.die_in_the_transaction, url)
    assert real.budgets("s") == before
    assert real.reserve(request()) == Allow()


def test_what_one_process_settles_another_may_reserve(real, url):
    assert real.reserve(request("s/1", train_flops=1000 * GFLOP)) == Allow()
    other = Ledger(url)
    assert isinstance(other.reserve(request("s/2")), Hold)
    grant = real.activate("s/1", "d1", "w1")
    real.settle(grant.lease, grant.fence, Usage(train_flops=990 * GFLOP))
    assert other.reserve(request("s/2")) == Allow()
