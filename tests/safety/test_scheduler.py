"""Gate 2 where trials are paused, changed, tried again or given other resources."""

from dataclasses import replace

import pytest
from ray.tune import TuneError
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

from safety import Allow, Deny, GovernorUnreachable, Hold, LedgerError, Usage
from safety import scheduler as gate_2
from safety.lease import DIED, OVERTIME
from safety.trials import STALL_SECONDS, START_SECONDS
from safety.tune import Governance, GovernedScheduler, GovernedStopper
from tests.safety.fakes import FakeAuthority, claim
from tests.safety.test_tune_plugins import LEASE, RESULT, FakeController, FakeTrial, Recording

NO = Deny("max_params", "too large", {"max_params": 1.0})
WAIT = Hold("lease", "its lease is active")
FLAT = {"score": 0.5, **{f"lease/{name}": value for name, value in LEASE.items()}}
USED = Usage(train_flops=10, wall_ms=20, gpu_ms=30, reports=3, lease=7)


class Choosing(Recording):
    """Chooses the first trial that is not over, and decides what it is told to."""

    decision = TrialScheduler.PAUSE

    def on_trial_result(self, tune_controller, trial, result):
        self.seen = [t.trial_id for t in tune_controller.get_trials()]
        self.live = {t.trial_id for t in tune_controller.get_live_trials()}
        return self.decision

    def choose_trial_to_run(self, tune_controller):
        waiting = (Trial.PENDING, Trial.PAUSED)
        return next((t for t in tune_controller.get_trials() if t.status in waiting), None)


class Factory:
    def __init__(self, gpus):
        self.required_resources = {"CPU": 1, "GPU": gpus}


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    naps = []
    monkeypatch.setattr(gate_2.time, "sleep", naps.append)
    return naps


@pytest.fixture
def authority():
    return FakeAuthority()


@pytest.fixture
def governance(authority):
    return Governance(authority=authority, sweep="s", price=lambda config: claim(**config.get("claim", {})))


@pytest.fixture
def inner():
    return Choosing()


@pytest.fixture
def scheduler(inner, governance):
    return GovernedScheduler(inner, governance)


@pytest.fixture
def running(scheduler):
    """A controller with one trial that runs."""
    controller = FakeController(FakeTrial())
    controller.scheduler = scheduler
    (trial,) = controller.trials
    scheduler.on_trial_add(controller, trial)
    trial.status = Trial.RUNNING
    return controller


def asked(authority, what):
    return [entry for entry in authority.asked if entry[0] == what]


@pytest.mark.parametrize("result", [RESULT, FLAT])
def test_a_trial_that_is_paused_is_settled_by_what_it_told_nested_or_flat(
    scheduler, running, authority, result
):
    assert scheduler.on_trial_result(running, running.trials[0], result) == TrialScheduler.PAUSE
    assert asked(authority, "settle") == [("settle", 7, 2, USED)]


def test_a_trial_that_the_inner_scheduler_paused_itself_is_settled(scheduler, inner, running, authority):
    inner.decision = TrialScheduler.NOOP
    running.trials[0].status = Trial.PAUSED
    scheduler.on_trial_result(running, running.trials[0], RESULT)
    assert len(asked(authority, "settle")) == 1


def test_a_trial_that_goes_on_is_not_settled(scheduler, inner, running, authority):
    inner.decision = TrialScheduler.CONTINUE
    scheduler.on_trial_result(running, running.trials[0], RESULT)
    assert asked(authority, "settle") == []


def test_a_trial_that_was_paused_is_asked_for_again_once_before_it_goes_on(scheduler, running, authority):
    (trial,) = running.trials
    scheduler.on_trial_result(running, trial, RESULT)
    trial.status = Trial.PAUSED
    assert [scheduler.choose_trial_to_run(running) for _ in range(3)] == [trial] * 3
    assert len(asked(authority, "readmit")) == 2  # on its arrival, and now


def test_what_changed_after_it_was_admitted_is_asked_for_again(scheduler, running, authority):
    (trial,) = running.trials
    trial.status = Trial.PAUSED
    trial.config = {"claim": {"params": 7}}
    assert scheduler.choose_trial_to_run(running) is trial
    assert len(asked(authority, "readmit")) == 2


def test_gpus_count_for_as_long_as_a_trial_may_run(governance, authority):
    requests = []
    authority.readmit = lambda request: requests.append(request) or Allow()
    for gpus in (0.05, 2):
        governance.readmit("t1", {}, gpus)
    assert [request.claim.gpu_ms for request in requests] == [6_000, 120_000]


def test_a_trial_whose_earlier_lease_is_not_over_waits_and_another_goes_first(
    scheduler, running, authority, slept
):
    other = FakeTrial("t2")
    running.trials[0].status = other.status = Trial.PAUSED
    running.trials.append(other)
    scheduler._admitted.clear()
    scheduler._governance.heard.admitted.clear()
    authority.admits = [WAIT, Allow()]
    assert scheduler.choose_trial_to_run(running) is other
    assert slept == []
    authority.admits = [WAIT]
    running.trials.remove(other)
    assert scheduler.choose_trial_to_run(running) is None
    assert slept == [gate_2.HOLD_SECONDS]
    assert scheduler.choose_trial_to_run(running) is running.trials[0]


def test_a_change_that_is_denied_ends_its_trial_and_the_inner_scheduler_hears_of_it(
    scheduler, inner, running, authority
):
    (trial,) = running.trials
    scheduler.on_trial_result(running, trial, RESULT)
    trial.status, trial.config = Trial.PAUSED, {"claim": {"params": 10**6}}
    authority.admits = [NO]
    assert scheduler.choose_trial_to_run(running) is None
    assert trial.status == Trial.TERMINATED
    assert inner.heard[-1] == ("remove", "t1")


def test_an_inner_scheduler_that_insists_on_a_trial_is_not_asked_for_ever(
    scheduler, inner, running, authority
):
    (trial,) = running.trials
    trial.status = Trial.PAUSED
    scheduler._admitted.clear()
    scheduler._governance.heard.admitted.clear()
    inner.choose_trial_to_run = lambda controller: trial
    authority.admits = [WAIT]
    assert scheduler.choose_trial_to_run(running) is None


def test_a_pending_trial_whose_resources_changed_does_not_start_unasked(scheduler, running, authority):
    first, second = running.trials[0], FakeTrial("t2")
    running.trials.append(second)
    scheduler.on_trial_add(running, second)
    first.status = Trial.PENDING
    second.placement_group_factory = Factory(2)
    authority.admits = [WAIT]
    assert scheduler.choose_trial_to_run(running) is first
    assert second.status == Trial.PAUSED
    assert scheduler.is_holding()


def test_a_pending_trial_whose_resources_are_refused_never_starts(scheduler, running, authority):
    first, second = running.trials[0], FakeTrial("t2")
    running.trials.append(second)
    scheduler.on_trial_add(running, second)
    first.status = Trial.PENDING
    second.placement_group_factory = Factory(2)
    authority.admits = [NO]
    scheduler.choose_trial_to_run(running)
    assert second.status == Trial.PAUSED
    scheduler.choose_trial_to_run(running)
    assert second.status == Trial.TERMINATED


def test_a_pending_trial_whose_resources_are_admitted_starts(scheduler, running, authority):
    first, second = running.trials[0], FakeTrial("t2")
    running.trials.append(second)
    scheduler.on_trial_add(running, second)
    first.status = Trial.PENDING
    second.placement_group_factory = Factory(2)
    scheduler.choose_trial_to_run(running)
    assert second.status == Trial.PENDING


def arrived(scheduler, controller, name):
    trial = FakeTrial(name)
    controller.trials.append(trial)
    scheduler.on_trial_add(controller, trial)
    return trial


def test_a_worker_that_is_free_goes_to_a_trial_that_has_just_come_not_to_one_whose_own_is_being_started(
    scheduler, running
):
    second = arrived(scheduler, running, "t2")
    assert scheduler.choose_trial_to_run(running) is second
    third = arrived(scheduler, running, "t3")
    assert scheduler.choose_trial_to_run(running) is third
    # nobody has come: better an idle worker than none yet
    assert scheduler.choose_trial_to_run(running) is second


def test_a_trial_that_waits_again_after_it_ran_counts_as_one_that_has_just_come(scheduler, running):
    second = arrived(scheduler, running, "t2")
    scheduler.choose_trial_to_run(running)
    second.status = Trial.RUNNING
    third = arrived(scheduler, running, "t3")
    assert scheduler.choose_trial_to_run(running) is third
    second.status = Trial.PENDING  # its worker was lost
    assert scheduler.choose_trial_to_run(running) is second


def test_a_trial_whose_own_worker_does_not_come_takes_a_free_one_in_the_end(scheduler, running, monkeypatch):
    now = [50.0]
    monkeypatch.setattr(gate_2.time, "monotonic", lambda: now[0])
    second = arrived(scheduler, running, "t2")
    scheduler.choose_trial_to_run(running)
    for number in range(3, 6):
        latest = arrived(scheduler, running, f"t{number}")
        assert scheduler.choose_trial_to_run(running) is latest
        latest.status = Trial.RUNNING
    now[0] += START_SECONDS
    arrived(scheduler, running, "t6")
    assert scheduler.choose_trial_to_run(running) is second


def test_a_paused_trial_that_was_resumed_has_a_worker_started_for_it_too(scheduler, running):
    (first,) = running.trials
    scheduler.on_trial_result(running, first, RESULT)
    first.status = Trial.PAUSED
    assert scheduler.choose_trial_to_run(running) is first
    first.status = Trial.PENDING
    second = arrived(scheduler, running, "t2")
    assert scheduler.choose_trial_to_run(running) is second


def test_a_paused_trial_that_the_inner_scheduler_resumes_goes_before_one_that_has_just_come(
    scheduler, running
):
    (first,) = running.trials
    scheduler.on_trial_result(running, first, RESULT)
    first.status = Trial.PAUSED
    arrived(scheduler, running, "t2")
    assert scheduler.choose_trial_to_run(running) is first


def test_a_trial_that_failed_and_is_tried_again_is_held_through_the_controller(scheduler, running, authority):
    (trial,) = running.trials
    told = []
    running._set_trial_status = lambda one, status: told.append(status) or one.set_status(status)
    scheduler.on_trial_error(running, trial)
    trial.status = Trial.PENDING
    authority.admits = [WAIT]
    scheduler.on_trial_add(running, trial)
    assert (told, trial.status) == ([Trial.PAUSED], Trial.PAUSED)
    assert scheduler.choose_trial_to_run(running) is trial


@pytest.mark.parametrize(
    ("verdict", "goes_on"),
    [
        (Allow(), True),
        (Deny("lease", "not renewed"), True),
        (Deny("failed", DIED), True),
        (Deny("failed", OVERTIME), False),
        (Deny("failed", "ValueError: no"), False),
    ],
)
def test_where_failures_are_final_a_trial_whose_worker_was_lost_alone_is_tried_again(
    inner, governance, running, authority, verdict, goes_on
):
    scheduler = GovernedScheduler(inner, replace(governance, retries_failures=False))
    (trial,) = running.trials
    authority.verdicts = {"s/t1": verdict}
    scheduler.on_trial_error(running, trial)
    trial.status = Trial.PENDING
    scheduler.on_trial_add(running, trial)
    assert (trial.status == Trial.PENDING) == goes_on
    scheduler.choose_trial_to_run(running)
    assert (trial.status == Trial.TERMINATED) != goes_on


@pytest.mark.parametrize("status", [Trial.TERMINATED, Trial.ERROR])
def test_a_trial_that_is_over_when_it_is_added_is_not_asked_for(scheduler, inner, authority, status):
    trial = FakeTrial()
    trial.status = status
    scheduler.on_trial_add(None, trial)
    assert (trial.status, authority.asked, inner.heard) == (status, [], [("add", "t1")])


def test_only_the_oldest_held_trial_is_asked_for(scheduler, running, authority):
    authority.admits = [WAIT, WAIT, WAIT]
    for name in ("t2", "t3"):
        running.trials.append(FakeTrial(name))
        scheduler.on_trial_add(running, running.trials[-1])
    before = len(authority.asked)
    scheduler.choose_trial_to_run(running)
    assert [entry[1] for entry in authority.asked[before:]] == ["s/t2"]


def test_a_held_trial_that_is_denied_makes_room_for_the_next(scheduler, running, authority):
    authority.admits = [WAIT, WAIT, NO, Allow()]
    for name in ("t2", "t3"):
        running.trials.append(FakeTrial(name))
        scheduler.on_trial_add(running, running.trials[-1])
    assert scheduler.choose_trial_to_run(running).trial_id == "t3"
    assert running.trials[1].status == Trial.TERMINATED


def test_the_inner_scheduler_sees_no_trial_that_it_was_not_told_of(scheduler, inner, running, authority):
    authority.admits = [WAIT]
    running.trials.append(FakeTrial("t2"))
    scheduler.on_trial_add(running, running.trials[1])
    scheduler.on_trial_result(running, running.trials[0], RESULT)
    assert (inner.seen, inner.live) == (["t1"], {"t1"})


@pytest.mark.parametrize("rule", ["budget.trials", "frozen", "closed"])
def test_a_refusal_of_whatever_comes_ends_the_search(scheduler, running, authority, rule):
    authority.admits = [Deny(rule, "used up")]
    running.trials.append(FakeTrial("t2"))
    scheduler.on_trial_add(running, running.trials[1])
    assert running.search_alg.finished
    assert scheduler._governance.heard.used_up == "used up"


def test_a_trial_that_was_refused_by_its_worker_is_an_error_to_the_inner_scheduler(scheduler, inner, running):
    scheduler.on_trial_complete(running, running.trials[0], {"lease_refused": "no", **RESULT})
    assert inner.heard[-1] == ("error", "t1")


def test_a_trial_whose_report_came_after_its_lease_was_over_fails_and_is_not_settled(
    scheduler, inner, governance, running, authority
):
    authority.verdicts = {"s/t1": Deny("lease", "s/t1: no active lease (forfeited)")}
    (trial,) = running.trials
    assert GovernedStopper(governance, "score")("t1", RESULT)
    asked = len(authority.asked)
    with pytest.raises(TuneError, match=r"no active lease \(forfeited\)"):
        scheduler.on_trial_complete(running, trial, RESULT)
    assert (authority.asked[asked:], governance.heard.denied) == ([], {})
    assert ("complete", "t1") not in inner.heard


def test_a_report_that_came_too_late_is_not_held_against_the_attempt_that_follows(
    scheduler, governance, running, authority
):
    (trial,) = running.trials
    stopper = GovernedStopper(governance, "score")
    authority.verdicts = {"s/t1": Deny("lease", "s/t1: no active lease (forfeited)")}
    assert stopper("t1", RESULT)
    # the same again, as a function's that has returned: it was never judged
    assert stopper("t1", RESULT)
    # Tune was saving it then, and found out that its worker had died
    scheduler.on_trial_error(running, trial)
    authority.verdicts = {}
    assert not stopper("t1", {**RESULT})
    scheduler.on_trial_complete(running, trial, RESULT)
    assert authority.asked[-1][0] == "settle"


def test_what_is_heard_of_a_trial_is_forgotten_with_its_lease(scheduler, governance, running, authority):
    stopper = GovernedStopper(governance, "score")
    ends = {
        "complete": lambda trial: scheduler.on_trial_complete(running, trial, RESULT),
        "error": lambda trial: scheduler.on_trial_error(running, trial),
        "remove": lambda trial: scheduler.on_trial_remove(running, trial),
        "pause": lambda trial: scheduler.on_trial_result(running, trial, RESULT),
    }
    for name, end in ends.items():
        trial = FakeTrial(name)
        scheduler.on_trial_add(running, trial)
        stopper(name, RESULT)
        assert f"s/{name}" in governance.heard.admitted
        end(trial)
    assert set(governance.heard.admitted) == {"s/t1"}
    # not known to be settled: the end of the sweep charges what was told
    assert set(governance.heard.usage) == {"s/error", "s/remove"}


def test_what_a_trial_told_is_kept_until_it_is_settled(scheduler, governance, running, authority):
    (trial,) = running.trials
    authority.silent = GovernorUnreachable("silent")
    scheduler._settle(trial, RESULT)
    assert governance.heard.usage == {"s/t1": USED}
    authority.silent = None
    scheduler._settle(trial, RESULT)
    assert governance.heard.usage == {}


@pytest.mark.parametrize("error", [GovernorUnreachable("silent"), LedgerError("locked")])
def test_a_trial_waits_while_the_governor_is_silent_and_goes_on_by_itself(
    scheduler, running, authority, error
):
    other = FakeTrial("t2")
    running.trials.append(other)
    authority.silent = error
    scheduler.on_trial_add(running, other)
    assert scheduler.choose_trial_to_run(running) is None
    assert other.status == Trial.PAUSED
    authority.silent = None
    assert scheduler.choose_trial_to_run(running) is other


def test_a_pause_that_can_not_be_settled_is_asked_for_again_all_the_same(scheduler, running, authority):
    (trial,) = running.trials
    authority.settle = lambda *told: (_ for _ in ()).throw(GovernorUnreachable("silent"))
    scheduler.on_trial_result(running, trial, RESULT)
    trial.status = Trial.PAUSED
    authority.admits = [WAIT]
    assert scheduler.choose_trial_to_run(running) is None


def test_paused_trials_that_nobody_resumes_end_after_a_while(scheduler, inner, running, monkeypatch):
    (trial,) = running.trials
    trial.status = Trial.PAUSED
    trial.init_local_path()
    inner.choose_trial_to_run = lambda controller: None
    now = [50.0]
    monkeypatch.setattr(gate_2.time, "monotonic", lambda: now[0])
    scheduler.choose_trial_to_run(running)
    now[0] += 100
    scheduler.choose_trial_to_run(running)
    assert trial.status == Trial.PAUSED  # more trials may come
    running.search_alg.finished = True
    scheduler.choose_trial_to_run(running)
    now[0] += STALL_SECONDS
    scheduler.choose_trial_to_run(running)
    assert trial.status == Trial.TERMINATED


def stalling(scheduler, inner, running, names):
    """Nothing but paused trials, and none to come."""
    running.search_alg.finished = True
    running.trials[:] = [FakeTrial(name) for name in names]
    for trial in running.trials:
        scheduler.on_trial_add(running, trial)
        scheduler.on_trial_result(running, trial, RESULT)
        trial.status = Trial.PAUSED
        trial.init_local_path()


def test_paused_trials_that_wait_for_the_governor_are_not_ended(
    scheduler, inner, running, authority, monkeypatch
):
    stalling(scheduler, inner, running, ["t2", "t3"])
    now = [50.0]
    monkeypatch.setattr(gate_2.time, "monotonic", lambda: now[0])
    for _ in range(4):
        authority.admits = [WAIT, WAIT]
        assert scheduler.choose_trial_to_run(running) is None
        now[0] += STALL_SECONDS
    assert [trial.status for trial in running.trials] == [Trial.PAUSED] * 2
    assert scheduler.choose_trial_to_run(running) is running.trials[0]


def test_after_one_stalled_trial_was_ended_the_others_have_their_time_again(
    scheduler, inner, running, monkeypatch
):
    stalling(scheduler, inner, running, ["t2", "t3"])
    inner.choose_trial_to_run = lambda controller: None
    now = [50.0]
    monkeypatch.setattr(gate_2.time, "monotonic", lambda: now[0])
    scheduler.choose_trial_to_run(running)
    now[0] += STALL_SECONDS
    for _ in range(3):
        scheduler.choose_trial_to_run(running)
        now[0] += 0.1
    assert sorted(trial.status for trial in running.trials) == [Trial.PAUSED, Trial.TERMINATED]


class Completing(PopulationBasedTraining):
    """Completes a configuration as PBT does when a trial is added."""

    def on_trial_add(self, tune_controller, trial):
        trial.config["slope"] = 1


def test_a_scheduler_that_completes_configurations_comes_before_their_price(governance, authority):
    inner = Completing(time_attr="t", metric="m", mode="max", hyperparam_mutations={"slope": [1]})
    scheduler = GovernedScheduler(inner, governance)
    digests = []
    authority.readmit = lambda request: digests.append(request.digest) or WAIT
    trial = FakeTrial()
    scheduler.on_trial_add(None, trial)
    assert digests == [governance.digest({"width": 8, "slope": 1})]
    assert scheduler._strangers == set()


@pytest.mark.parametrize("admits", [[], [WAIT]], ids=["at once", "held first"])
def test_an_inner_scheduler_that_completes_a_trial_hears_of_it_once(governance, authority, admits):
    inner = Completing(time_attr="t", metric="m", mode="max", hyperparam_mutations={"slope": [1]})
    controller = FakeController(FakeTrial())
    controller.scheduler = scheduler = GovernedScheduler(inner, governance)
    (trial,) = controller.trials
    authority.admits = list(admits)
    scheduler.on_trial_add(controller, trial)
    assert (trial.status, scheduler.is_holding()) == (Trial.PAUSED if admits else Trial.PENDING, bool(admits))
    trial.config["slope"] = 3
    if admits:
        assert scheduler.choose_trial_to_run(controller) is trial
    assert (trial.config["slope"], scheduler.is_holding()) == (3, False)


def test_results_are_never_buffered(scheduler):
    assert not scheduler.supports_buffered_results
