"""The three plugins, driven as Tune drives them, without a Ray that runs."""

import logging
from fractions import Fraction

import pytest
from ray import cloudpickle
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from safety import Allow, Deny, GovernorUnreachable, Hold, KeyReused, LeaseLost, SearchExhausted, Usage
from safety import scheduler as gate_2
from safety import search as gate_1
from safety import stopper as judge
from safety.governance import tellable
from safety.rules import judge_report
from safety.tune import Governance, GovernedScheduler, GovernedSearch, GovernedStopper, report_of, usage_of
from tests.safety.fakes import FakeAuthority, claim, limits

NO = Deny("max_params", "too large", {"max_params": 1.0})
WAIT = Hold("budget.trials", "others run")


def price(config):
    if "unpriceable" in config:
        raise ZeroDivisionError("no price")
    return claim()


class FakeSearcher(Searcher):
    """Proposes what it is given, and remembers what it was told."""

    def __init__(self, *proposals):
        super().__init__(metric="score", mode="max")
        self.proposals, self.told = list(proposals), []

    def suggest(self, trial_id):
        self.told.append(("suggest", trial_id))
        return self.proposals.pop(0) if self.proposals else Searcher.FINISHED

    def on_trial_result(self, trial_id, result):
        self.told.append(("result", trial_id, result["score"]))

    def on_trial_complete(self, trial_id, result=None, error=False):
        self.told.append(("complete", trial_id, result, error))

    def set_search_properties(self, metric, mode, config, **spec):
        self._metric = metric
        return True

    def save(self, checkpoint_path):
        self.told.append(("save", checkpoint_path))

    def restore(self, checkpoint_path):
        self.told.append(("restore", checkpoint_path))


class ListeningSearcher(FakeSearcher):
    """One that wants to know why."""

    def on_trial_refused(self, trial_id, denial):
        self.told.append(("refused", trial_id, denial.rule))


@pytest.fixture(autouse=True)
def without_sleep(monkeypatch):
    monkeypatch.setattr(gate_1, "HOLD_SECONDS", 0.0)
    monkeypatch.setattr(gate_2, "HOLD_SECONDS", 0.0)


@pytest.fixture
def authority():
    return FakeAuthority()


@pytest.fixture
def governance(authority):
    return Governance(authority=authority, sweep="s", price=price)


def asking_to_stop(authority):
    return Governance(authority=authority, sweep="s", price=price, stop_asked=lambda: True)


# --- gate 1: the searcher


def test_a_proposal_that_is_admitted_is_passed_on(governance, authority):
    search = GovernedSearch(FakeSearcher({"width": 8}), governance)
    assert search.suggest("t1") == {"width": 8}
    assert authority.asked == [("admit", "s/t1")]


def test_a_refused_proposal_goes_back_and_another_is_asked_for(governance, authority):
    authority.admits = [NO, NO, Allow()]
    inner = ListeningSearcher({"width": 1}, {"width": 2}, {"width": 3})
    assert GovernedSearch(inner, governance).suggest("t1") == {"width": 3}
    assert [told[0] for told in inner.told] == ["suggest", "refused", "suggest", "refused", "suggest"]


def test_a_searcher_that_does_not_ask_why_is_told_of_an_error(governance, authority):
    authority.admits = [NO]
    inner = FakeSearcher({"width": 1}, {"width": 2})
    search = GovernedSearch(inner, governance)
    assert search.suggest("t1") == {"width": 2}
    search.on_trial_complete("t1", {"score": 0.5})
    assert inner.told == [
        ("suggest", "t1"),
        ("complete", "t1", None, True),
        ("suggest", "t1.1"),  # under the same name, it would propose the same
        ("complete", "t1.1", {"score": 0.5}, False),
    ]


def test_a_proposal_that_must_wait_is_kept_and_asked_for_again_under_the_new_name(governance, authority):
    authority.admits = [WAIT, WAIT, Allow()]
    inner = ListeningSearcher({"width": 1}, {"width": 2})
    search = GovernedSearch(inner, governance)
    assert search.suggest("t1") is None
    assert search.suggest("t2") is None
    assert search.suggest("t3") == {"width": 1}
    assert [asked[1] for asked in authority.asked if asked[0] == "admit"] == ["s/t1", "s/t2", "s/t3"]
    assert inner.told == [("suggest", "t1")]
    assert search.suggest("t4") == {"width": 2}


def test_the_inner_searcher_hears_of_a_trial_by_the_name_that_it_proposed_under(governance, authority):
    authority.admits = [WAIT, Allow()]
    inner = FakeSearcher({"width": 1})
    search = GovernedSearch(inner, governance)
    search.suggest("t1")
    search.suggest("t2")
    search.on_trial_result("t2", {"score": 0.5})
    search.on_trial_complete("t2", {"score": 0.5})
    assert inner.told[1:] == [("result", "t1", 0.5), ("complete", "t1", {"score": 0.5}, False)]


def test_a_waiting_proposal_that_is_refused_in_the_end_is_told_by_its_first_name(governance, authority):
    authority.admits = [WAIT, NO, Allow()]
    inner = ListeningSearcher({"width": 1}, {"width": 2})
    search = GovernedSearch(inner, governance)
    search.suggest("t1")
    assert search.suggest("t2") == {"width": 2}
    assert inner.told == [("suggest", "t1"), ("refused", "t1", "max_params"), ("suggest", "t2")]


@pytest.mark.parametrize("answer", [None, Searcher.FINISHED])
def test_a_searcher_that_has_nothing_now_or_at_all_is_not_asked_for_more(governance, authority, answer):
    assert GovernedSearch(FakeSearcher(answer), governance).suggest("t1") is answer
    assert authority.asked == []


@pytest.mark.parametrize("rule", ["budget.trials", "frozen", "killed", "closed"])
def test_a_refusal_of_whatever_comes_ends_the_search_at_once(governance, authority, rule):
    authority.admits = [Deny(rule, "used up")]
    inner = ListeningSearcher({"width": 1}, {"width": 2})
    assert GovernedSearch(inner, governance).suggest("t1") == Searcher.FINISHED
    assert inner.told == [("suggest", "t1"), ("refused", "t1", rule)]


def test_a_budget_without_room_for_many_proposals_in_a_row_ends_the_search(governance, authority):
    authority.admits = [Deny("budget.train_gflop", "spent")] * 50
    inner = ListeningSearcher(*[{"width": i} for i in range(50)])
    assert GovernedSearch(inner, governance).suggest("t1") == Searcher.FINISHED
    assert len(authority.asked) == gate_1.BUDGET_REFUSALS


def test_refusals_for_other_reasons_are_no_sign_that_a_budget_is_used_up(governance, authority):
    spent = Deny("budget.train_gflop", "spent")
    authority.admits = [*[NO] * 30, spent, NO, *[spent] * 5, Allow()]
    inner = ListeningSearcher(*[{"width": i} for i in range(60)])
    assert GovernedSearch(inner, governance).suggest("t1") == {"width": 37}


def test_too_many_refusals_in_a_row_are_an_error_that_tells_the_last_reason(governance, authority):
    authority.admits = [NO] * 10
    search = GovernedSearch(ListeningSearcher(*[{"width": i} for i in range(10)]), governance, max_refusals=7)
    with pytest.raises(SearchExhausted, match=r"7 proposals in a row were refused.*because too large"):
        search.suggest("t1")
    assert len(authority.asked) == 7


def test_a_proposal_that_is_admitted_begins_the_count_anew(governance, authority):
    authority.admits = [NO, NO, Allow(), NO, NO, Allow()]
    search = GovernedSearch(ListeningSearcher(*[{"width": i} for i in range(6)]), governance, max_refusals=3)
    assert search.suggest("t1") == {"width": 2}
    assert search.suggest("t2") == {"width": 5}


def test_whoever_asks_for_the_end_gets_no_more_proposals(authority):
    inner = FakeSearcher({"width": 1})
    assert GovernedSearch(inner, asking_to_stop(authority)).suggest("t1") == Searcher.FINISHED
    assert inner.told == []


@pytest.mark.parametrize("config", [{"unpriceable": 1}, {"width": float("nan")}, {"width": object()}])
def test_what_can_not_be_priced_or_told_is_denied(governance, authority, config):
    verdict = governance.admit("t1", config)
    assert verdict.rule == "price"
    assert "this configuration can't be priced: " in verdict.reason
    assert authority.asked == []


def test_a_governor_that_is_silent_admits_nothing(governance, authority, monkeypatch):
    authority.silent = GovernorUnreachable("silent")
    monkeypatch.setattr(authority, "pulse", lambda sweep: "open")
    search = GovernedSearch(FakeSearcher({"width": 1}), governance)
    assert search.suggest("t1") is None
    authority.silent = None
    assert search.suggest("t2") == {"width": 1}


def test_a_key_that_was_used_for_something_else_is_an_error(governance, authority):
    authority.silent = KeyReused("s/t1")
    with pytest.raises(KeyReused):
        GovernedSearch(FakeSearcher({"width": 1}), governance).suggest("t1")


def test_a_denied_trial_is_told_as_a_refusal_whatever_it_scored(governance, authority):
    authority.verdicts["s/t1"] = Deny("finite_score", "score is nan")
    inner = ListeningSearcher({"width": 1})
    search = GovernedSearch(inner, governance)
    search.suggest("t1")
    governance.heard.denied["s/t1"] = Deny("finite_score", "score is nan")
    search.on_trial_complete("t1", {"score": 0.9})
    assert inner.told[-1] == ("refused", "t1", "finite_score")


def test_a_report_that_the_stopper_denied_is_a_refusal_to_the_search(governance, authority):
    authority.verdicts["s/t1"] = Deny("finite_score", "score is nan")
    authority.report = lambda key, report: Deny("finite_score", "score is nan")
    inner = ListeningSearcher({"width": 1})
    search = GovernedSearch(inner, governance)
    search.suggest("t1")
    del authority.verdicts["s/t1"]  # it is heard, not asked
    assert GovernedStopper(governance, "score")("t1", {"score": 0.9})
    search.on_trial_complete("t1", {"score": 0.9})
    assert inner.told[-1] == ("refused", "t1", "finite_score")


@pytest.mark.parametrize(
    "result", [None, {}, {"score": float("nan")}, {"score": "0.5"}, {"score": float("inf")}]
)
def test_a_trial_without_a_finite_score_is_told_as_an_error(governance, result):
    inner = ListeningSearcher()
    GovernedSearch(inner, governance).on_trial_complete("t1", result)
    assert inner.told == [("complete", "t1", None, True)]


def test_a_trial_that_failed_is_told_as_an_error(governance):
    inner = ListeningSearcher()
    GovernedSearch(inner, governance).on_trial_complete("t1", {"score": 0.5}, error=True)
    assert inner.told == [("complete", "t1", {"score": 0.5}, True)]


def test_the_searcher_passes_on_the_metric_and_its_state(governance):
    inner = FakeSearcher()
    search = GovernedSearch(inner, governance)
    assert search.set_search_properties("other", "max", {})
    assert search.metric == "other"
    search.save("here")
    search.restore("here")
    assert inner.told == [("save", "here"), ("restore", "here")]


# --- gate 2: the scheduler


class FakeTrial:
    def __init__(self, trial_id="t1", config=None):
        self.trial_id, self.config, self.status = trial_id, config or {"width": 8}, Trial.PENDING
        self.local_path, self.error_file = False, None
        self.placement_group_factory = None

    def is_finished(self):
        return self.status in (Trial.TERMINATED, Trial.ERROR)

    def set_status(self, status):
        self.status = status

    def init_local_path(self):
        self.local_path = True


class FakeSearch:
    finished = False

    def set_finished(self):
        self.finished = True

    def is_finished(self):
        return self.finished


class FakeController:
    """Does with a stopped trial what Tune does."""

    def __init__(self, *trials):
        self.trials, self.scheduler = list(trials), None
        self.search_alg = FakeSearch()

    def get_trials(self):
        return self.trials

    def get_live_trials(self):
        return {trial for trial in self.trials if not trial.is_finished()}

    def _set_trial_status(self, trial, status):
        assert trial.status != status
        trial.set_status(status)

    def stop_trial(self, trial):
        assert trial.local_path, "without a local path, building the ResultGrid fails"
        trial.set_status(Trial.TERMINATED)
        self.scheduler.on_trial_remove(self, trial)


class Recording(FIFOScheduler):
    """The inner scheduler, which remembers what it hears."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def on_trial_add(self, tune_controller, trial):
        self.heard.append(("add", trial.trial_id))

    def on_trial_error(self, tune_controller, trial):
        self.heard.append(("error", trial.trial_id))

    def on_trial_result(self, tune_controller, trial, result):
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller, trial, result):
        self.heard.append(("complete", trial.trial_id))

    def on_trial_remove(self, tune_controller, trial):
        self.heard.append(("remove", trial.trial_id))

    def save(self, checkpoint_path):
        self.heard.append(("save", checkpoint_path))

    def restore(self, checkpoint_path):
        self.heard.append(("restore", checkpoint_path))


@pytest.fixture
def inner():
    return Recording()


@pytest.fixture
def scheduler(inner, governance):
    return GovernedScheduler(inner, governance)


def controller_of(scheduler, *trials):
    controller = FakeController(*trials)
    controller.scheduler = scheduler
    return controller


def test_a_trial_that_is_admitted_on_arrival_stays_pending(scheduler, inner):
    trial = FakeTrial()
    scheduler.on_trial_add(controller_of(scheduler), trial)
    assert trial.status == Trial.PENDING
    assert inner.heard == [("add", "t1")]


@pytest.mark.parametrize(("verdict", "held"), [(WAIT, 1), (NO, 0)])
def test_a_trial_that_is_not_admitted_is_paused_and_the_inner_scheduler_does_not_hear_of_it(
    scheduler, inner, authority, verdict, held
):
    authority.admits = [verdict]
    trial = FakeTrial()
    scheduler.on_trial_add(controller_of(scheduler), trial)
    assert trial.status == Trial.PAUSED
    assert inner.heard == []
    assert scheduler.debug_string().startswith(f"Governed, {held} held; ")
    assert scheduler.is_holding() == bool(held)


def test_a_held_trial_starts_when_it_is_admitted(scheduler, inner, authority):
    authority.admits = [WAIT, WAIT, Allow()]
    trial = FakeTrial()
    controller = controller_of(scheduler, trial)
    scheduler.on_trial_add(controller, trial)
    assert scheduler.choose_trial_to_run(controller) is None
    assert scheduler.choose_trial_to_run(controller) is trial
    assert inner.heard == [("add", "t1")]


def test_a_trial_that_is_denied_is_stopped_without_ever_starting(scheduler, inner, authority):
    authority.admits = [NO]
    trial = FakeTrial()
    controller = controller_of(scheduler, trial)
    scheduler.on_trial_add(controller, trial)
    assert scheduler.choose_trial_to_run(controller) is None
    assert trial.status == Trial.TERMINATED
    assert authority.asked[-1][:2] == ("void", "s/t1")
    assert inner.heard == []
    assert scheduler.debug_string().startswith("Governed, 0 held")


def test_a_trial_that_can_not_be_priced_never_starts(scheduler, authority):
    trial = FakeTrial(config={"unpriceable": 1})
    controller = controller_of(scheduler, trial)
    scheduler.on_trial_add(controller, trial)
    scheduler.choose_trial_to_run(controller)
    assert trial.status == Trial.TERMINATED


def test_the_inner_scheduler_chooses_among_the_others_while_one_is_held(scheduler, authority):
    authority.admits = [WAIT, Allow(), WAIT]
    held, free = FakeTrial("t1"), FakeTrial("t2")
    controller = controller_of(scheduler, held, free)
    scheduler.on_trial_add(controller, held)
    scheduler.on_trial_add(controller, free)
    assert scheduler.choose_trial_to_run(controller) is free


def test_a_held_trial_is_not_chosen_by_an_inner_scheduler_that_starts_paused_ones(governance, authority):
    class StartsAll(Recording):
        def choose_trial_to_run(self, tune_controller):
            assert tune_controller.trials  # the rest of the controller is there
            return next(iter(tune_controller.get_trials()), None)

    authority.admits = [WAIT, WAIT]
    scheduler = GovernedScheduler(StartsAll(), governance)
    trial = FakeTrial()
    controller = controller_of(scheduler, trial)
    scheduler.on_trial_add(controller, trial)
    assert scheduler.choose_trial_to_run(controller) is None


def test_the_controller_does_not_spin_while_a_trial_is_held(scheduler, authority, monkeypatch):
    slept = []
    monkeypatch.setattr(gate_2.time, "sleep", slept.append)
    authority.admits = [WAIT, WAIT]
    trial = FakeTrial()
    controller = controller_of(scheduler, trial)
    scheduler.on_trial_add(controller, trial)
    scheduler.choose_trial_to_run(controller)
    assert slept == [gate_2.HOLD_SECONDS]


LEASE = {"id": 7, "fence": 2, "train_flops": 10, "wall_ms": 20, "gpu_ms": 30, "reports": 3}
RESULT = {"score": 0.5, "lease": LEASE}
USED = Usage(train_flops=10, wall_ms=20, gpu_ms=30, reports=3, lease=7)


def test_a_trial_that_is_complete_is_settled_by_what_its_worker_told(scheduler, inner, authority):
    scheduler.on_trial_complete(None, FakeTrial(), RESULT)
    assert authority.asked == [("settle", 7, 2, USED)]
    assert inner.heard == [("complete", "t1")]


def test_a_trial_that_never_reported_is_not_settled(scheduler, authority):
    scheduler.on_trial_complete(None, FakeTrial(), {"done": True})
    assert authority.asked == [("void", "s/t1", "it ended before it began")]


@pytest.mark.parametrize("error", [LeaseLost("stale"), GovernorUnreachable("silent")])
def test_a_lease_that_can_not_be_settled_is_left_to_be_reaped(scheduler, inner, authority, caplog, error):
    authority.silent = error
    scheduler.on_trial_complete(None, FakeTrial(), RESULT)
    assert "its hold is spent" in caplog.text
    assert inner.heard == [("complete", "t1")]


def test_a_result_that_tells_a_lease_and_no_usage_settles_nothing(scheduler, inner, authority):
    scheduler.on_trial_complete(None, FakeTrial(), {"lease": {"id": 7, "fence": 2}})
    assert authority.asked == []
    assert inner.heard == [("complete", "t1")]


def test_a_trial_that_failed_is_recorded_and_never_settled(scheduler, inner, authority):
    scheduler.on_trial_error(None, FakeTrial())
    assert authority.asked == [
        ("fail", "s", "s/t1", "it failed without a word"),
        ("void", "s/t1", "its trial failed before it began"),
    ]
    assert inner.heard == [("error", "t1")]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("Traceback ...\nValueError: no\n", "ValueError: no"),
        ("ray.exceptions.ActorDiedError: the actor died\n more\n", "its worker died: past its lease"),
        (
            "Failure # 1\nThe actor 0a is unavailable: IOError. The task may or\n",
            "its worker died: past its lease",
        ),
        ("Traceback ...\nrsi_ray.errors.WorkerLost: worker 1 died\n", "its worker died: past its lease"),
        ("Failure # 1\nActorDiedError\nFailure # 2 (now)\nValueError: no\n", "ValueError: no"),
        ("\n", "it failed without a word"),
    ],
)
def test_why_a_trial_failed_is_told_in_one_line(scheduler, authority, tmp_path, written, told):
    trial = FakeTrial()
    trial.error_file = tmp_path / "error.txt"
    trial.error_file.write_text(written)
    scheduler.on_trial_error(None, trial)
    assert authority.asked[0][3].startswith(told)


def test_an_error_file_that_is_gone_is_no_second_error(scheduler, authority, tmp_path):
    trial = FakeTrial()
    trial.error_file = tmp_path / "gone.txt"
    scheduler.on_trial_error(None, trial)
    assert authority.asked[0][3] == "it failed without a word"


def test_a_trial_that_is_removed_gives_its_lease_back(scheduler, inner, authority):
    trial = FakeTrial()
    scheduler.on_trial_add(None, trial)
    scheduler.on_trial_remove(None, trial)
    assert inner.heard == [("add", "t1"), ("remove", "t1")]
    assert authority.asked[-1] == ("void", "s/t1", "removed before it began")


def test_the_scheduler_passes_everything_else_on(scheduler, inner):
    assert scheduler.set_search_properties("score", "max")
    assert scheduler.metric == inner.metric
    assert scheduler.on_trial_result(None, FakeTrial(), {}) == TrialScheduler.STOP
    scheduler.save("here")
    scheduler.restore("here")
    assert inner.heard == [("save", "here"), ("restore", "here")]


# --- the judge of reports


@pytest.fixture
def stopper(governance):
    return GovernedStopper(governance, "score")


def test_a_report_that_is_allowed_goes_on(stopper, authority):
    assert not stopper("t1", RESULT)
    what, key, report = authority.asked[0]
    assert (what, key) == ("report", "s/t1")
    assert (report.score, report.usage) == (0.5, USED)


@pytest.mark.parametrize("verdict", [NO, Hold("h", "wait")])
def test_a_report_that_is_not_allowed_stops_its_trial(stopper, authority, verdict):
    authority.verdicts["s/t1"] = verdict
    assert stopper("t1", RESULT)


@pytest.mark.parametrize(
    "error", [GovernorUnreachable("silent"), ValueError("whatever"), ZeroDivisionError()]
)
def test_a_report_that_can_not_be_judged_stops_its_trial(stopper, authority, caplog, error):
    authority.silent = error
    assert stopper("t1", RESULT)
    assert "s/t1: stopped, its report could not be judged" in caplog.text


def test_a_result_that_tells_half_of_its_usage_stops_its_trial(stopper, caplog):
    assert stopper("t1", {"score": 0.5, "lease": {"id": 1, "train_flops": 1}})
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("state", ["frozen", "killed", "closed"])
def test_a_sweep_that_is_not_open_is_stopped(stopper, authority, state):
    authority.states = state
    assert stopper.stop_all()


def test_whoever_asks_for_the_end_stops_the_sweep(authority):
    assert GovernedStopper(asking_to_stop(authority), "score").stop_all()


def test_the_driver_says_that_it_is_alive_once_a_second(stopper, authority, monkeypatch):
    now = [50.0]
    monkeypatch.setattr(judge.time, "monotonic", lambda: now[0])
    for _ in range(10):
        assert not stopper.stop_all()
    assert authority.asked == [("pulse", "s")]
    now[0] += judge.PULSE_SECONDS
    stopper.stop_all()
    assert len(authority.asked) == 2


def test_a_governor_that_is_silent_ends_the_sweep_with_an_error(stopper, authority):
    authority.silent = GovernorUnreachable("silent")
    with pytest.raises(GovernorUnreachable):
        stopper.stop_all()


def test_a_report_holds_score_domains_and_usage():
    report = report_of({**RESULT, "domains": {"reasoning": 0.9}}, "score")
    assert (report.score, report.domains, report.usage) == (0.5, {"reasoning": 0.9}, usage_of(RESULT))


def test_a_result_without_metric_or_usage_is_a_report_without_them():
    report = report_of({}, "score")
    assert (report.score, report.domains, report.usage) == (None, {}, Usage())


@pytest.mark.parametrize(
    ("own", "highest", "judged"),
    [
        ({"a": 0.5, "b": 0.4}, {"a": 0.7, "b": 0.4}, {"a": 0.7, "b": 0.4}),
        ({"a": 0.5}, {"a": 0.3, "b": 0.9}, {"a": 0.5, "b": 0.9}),
        ({"a": "?"}, {"a": 0.9}, {"a": "?"}),
        ({"a": 0.5}, {"a": "?"}, {"a": "?"}),
        ({"a": 0.5}, "all", {"a": 0.5}),
    ],
)
def test_of_several_models_the_highest_in_each_domain_is_judged(own, highest, judged):
    assert report_of({"score": 0.5, "domains": own, "highest_domains": highest}, "score").domains == judged


def test_domains_that_are_no_mapping_are_reported_as_what_they_are():
    assert report_of({"score": 0.5, "domains": "all"}, "score").domains == {"domains": "all"}


# --- restored plugins


def test_a_searcher_comes_back_from_a_pickle_without_its_history(governance, authority):
    authority.admits = [NO, Allow(), NO, WAIT]
    search = GovernedSearch(ListeningSearcher({"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}), governance)
    search.suggest("t1")
    search.suggest("t2")
    back = cloudpickle.loads(cloudpickle.dumps(search))
    assert (back._waiting, back._proposed_as, back._refusals, back._without_room) == (None, {}, 0, 0)
    assert back.suggest("t9") == Searcher.FINISHED


def test_a_scheduler_comes_back_from_a_pickle_without_what_it_held(scheduler, authority):
    authority.admits = [WAIT]
    scheduler.on_trial_add(None, FakeTrial())
    back = cloudpickle.loads(cloudpickle.dumps(scheduler))
    assert back.debug_string().startswith("Governed, 0 held")


def test_a_stopper_comes_back_from_a_pickle_and_asks_at_once(stopper, authority, monkeypatch):
    stopper.stop_all()
    back = cloudpickle.loads(cloudpickle.dumps(stopper))
    monkeypatch.setattr(judge.time, "monotonic", lambda: 0.5)  # another host, just started
    back.stop_all()
    assert back._governance.authority.asked[-1] == ("pulse", "s")
    assert len(back._governance.authority.asked) == 2


@pytest.mark.parametrize("plugin", ["search", "scheduler", "stopper"])
def test_no_plugin_holds_a_limit(governance, plugin):
    made = {
        "search": GovernedSearch(FakeSearcher(), governance),
        "scheduler": GovernedScheduler(Recording(), governance),
        "stopper": GovernedStopper(governance, "score"),
    }[plugin]
    assert b"Limits" not in cloudpickle.dumps(made)
    assert set(vars(made)) - {"_governance", "_inner", "_metric", "_mode"} <= {
        "_max_refusals", "_complete", "_refusals", "_without_room", "_waiting", "_proposed_as", "_pulsed",
        "_held", "_denied", "_strangers", "_starting", "_admitted", "_failed", "_stall", "_waits", "_judged",
            "_counted",
    }  # fmt: skip


# --- what the plugins of one process have heard


def test_what_was_admitted_at_gate_1_is_not_asked_for_again_at_gate_2(governance, authority):
    assert GovernedSearch(FakeSearcher({"width": 8}), governance).suggest("t1") == {"width": 8}
    trial = FakeTrial(config={"width": 8})
    GovernedScheduler(Recording(), governance).on_trial_add(None, trial)
    assert trial.status == Trial.PENDING
    assert authority.asked == [("admit", "s/t1")]


def test_a_configuration_that_was_changed_after_gate_1_is_asked_for_anew(governance, authority):
    authority.admits = [Allow(), NO]
    governance.admit("t1", {"width": 8})
    trial = FakeTrial(config={"width": 9})
    GovernedScheduler(Recording(), governance).on_trial_add(None, trial)
    assert trial.status == Trial.PAUSED


def test_what_was_refused_is_asked_for_again(governance, authority):
    authority.admits = [WAIT, NO, Allow()]
    verdicts = [governance.admit("t1", {"width": 8}) for _ in range(4)]
    assert verdicts == [WAIT, NO, Allow(), Allow()]
    assert len(authority.asked) == 3


def test_a_restored_plugin_has_heard_nothing(governance):
    governance.admit("t1", {"width": 8})
    back = cloudpickle.loads(cloudpickle.dumps(governance))
    back.admit("t1", {"width": 8})
    assert len(back.authority.asked) == 2


@pytest.mark.parametrize(
    ("result", "error"), [({"score": 0.5}, True), (None, False), ({"done": True}, False)]
)
def test_why_a_trial_ended_without_a_score_is_asked_of_the_governor(governance, authority, result, error):
    authority.verdicts["s/t1"] = Deny("failed", "RuntimeError: no")
    inner = ListeningSearcher()
    GovernedSearch(inner, governance).on_trial_complete("t1", result, error)
    assert inner.told == [("refused", "t1", "failed")]


def test_a_score_whose_report_could_not_be_judged_is_never_told(governance, authority):
    authority.silent = None
    inner = ListeningSearcher({"width": 1})
    search = GovernedSearch(inner, governance)
    search.suggest("t1")
    authority.silent = GovernorUnreachable("silent")
    assert GovernedStopper(governance, "score")("t1", {"score": 0.9})
    search.on_trial_complete("t1", {"score": 0.9})
    assert inner.told[-1][0] == "refused"


# --- what govern needs of them


def test_a_proposal_is_asked_for_as_the_trial_that_it_becomes(governance, authority):
    seen = []
    authority.admit = lambda request: seen.append(request.digest) or Allow()
    search = GovernedSearch(
        FakeSearcher({"width": 1}), governance, complete=lambda proposed: {**proposed, "constant": 7}
    )
    assert search.suggest("t1") == {"width": 1}
    assert seen == [governance.digest({"width": 1, "constant": 7})]


def test_the_search_shows_what_it_wraps_and_has_no_state_of_its_own(governance):
    inner = FakeSearcher()
    search = GovernedSearch(inner, governance)
    assert search.searcher is inner
    search.set_state(search.get_state())
    assert search.get_state() == {}


def test_the_inner_searcher_hears_of_pauses_by_its_own_name(governance, authority):
    class Pausing(FakeSearcher):
        def on_pause(self, trial_id):
            self.told.append(("pause", trial_id))

        def on_unpause(self, trial_id):
            self.told.append(("unpause", trial_id))

    authority.admits = [WAIT, Allow()]
    inner = Pausing({"width": 1})
    search = GovernedSearch(inner, governance)
    search.suggest("t1")
    search.suggest("t2")
    search.on_pause("t2")
    search.on_unpause("t2")
    assert inner.told[1:] == [("pause", "t1"), ("unpause", "t1")]


def test_a_grid_waits_while_a_trial_is_held():
    waits = [True]
    variants = gate_1.PatientVariants(lambda: waits[0], max_concurrent=2)
    variants._trial_generator = iter([FakeTrial("t1")])
    assert variants.next_trial() is None
    waits[0] = False
    assert variants.next_trial().trial_id == "t1"
    assert "_waits" not in variants.get_state()
    assert variants.max_concurrent == 2


def test_a_result_that_its_worker_refused_is_not_judged_again(stopper, authority):
    assert stopper("t1", {"done": True, "lease_refused": "no lease"})
    assert authority.asked == []


def test_a_result_that_tune_gives_again_when_a_function_returned_is_judged_once(stopper, authority):
    result = {"score": 0.5}
    assert not stopper("t1", result)
    authority.verdicts["s/t1"] = NO  # its lease is over by now
    assert not stopper("t1", result)
    assert stopper("t1", dict(result))
    assert cloudpickle.loads(cloudpickle.dumps(stopper))._judged == {}


def test_the_reports_of_a_lease_are_counted_by_who_hears_them(stopper, authority):
    for lease, reports in ((7, 1), (7, 1), (7, 1), (8, 3)):
        told = {"id": lease, "fence": 1, "train_flops": 0, "wall_ms": 0, "gpu_ms": 0, "reports": reports}
        stopper("t1", {"score": 0.5, "lease": told})
    stopper("t2", {"score": 0.5})
    assert [report.number for _, _, report in authority.asked] == [1, 2, 3, 1, 1]
    assert cloudpickle.loads(cloudpickle.dumps(stopper))._counted == {}


def test_a_metric_that_is_called_refused_is_a_metric_like_any_other(stopper, authority):
    assert not stopper("t1", {"score": 0.5, "refused": 0.1})
    assert [entry[0] for entry in authority.asked] == ["report"]


@pytest.mark.parametrize(
    ("metric", "score"),
    [
        ("score", 0.5),
        ("eval/loss", 2.0),
        ("eval/gone", None),
        (["score", "eval/loss"], 0.5),
        (["score", "gone"], None),
        (None, 0.0),
    ],
)
def test_a_score_is_found_by_its_flat_name_and_of_several_the_worst_is_judged(metric, score):
    assert report_of({"score": 0.5, "eval": {"loss": 2.0}}, metric).score == score


def test_a_search_that_waits_says_that_its_driver_is_alive_and_ends_with_its_sweep(monkeypatch):
    monkeypatch.setattr("safety.search.PULSE_SECONDS", 0.0)
    monkeypatch.setattr("safety.search.HOLD_SECONDS", 0.0)
    authority = FakeAuthority(admits=[WAIT, WAIT])
    searcher = GovernedSearch(FakeSearcher({"x": 1}), Governance(authority=authority, sweep="s", price=price))
    assert searcher.suggest("a") is None
    assert ("pulse", "s") in authority.asked
    authority.states = "frozen"
    assert searcher.suggest("b") == Searcher.FINISHED


@pytest.mark.parametrize(
    "beyond", [10**400, -(10**400), 10**5000, Fraction(10**400)], ids=lambda one: type(one).__name__
)
def test_a_number_beyond_a_float_is_told_as_text_which_no_rule_takes_for_a_score(beyond):
    told = tellable({"score": beyond, "domains": {"danger": beyond}, "loss": 0.5, "step": 2**62, "name": "x"})
    assert told["score"] == told["domains"]["danger"] == f"a {type(beyond).__name__} beyond a float"
    assert (told["loss"], told["step"], told["name"]) == (0.5, 2**62, "x")
    assert judge_report(limits(), claim(), report_of(told, "score")).rule == "finite_score"
