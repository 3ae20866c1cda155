"""The governor's actor and its client, in this process."""

import asyncio
import inspect
import threading
from types import SimpleNamespace

import pytest
from ray.exceptions import RayError

from safety import Allow, Governor, GovernorUnreachable, KeyReused, Ledger, LedgerError
from safety.actor import GovernorClient, connect, connect_to_any
from safety.answers import read, sealed
from safety.emergency_client import EmergencyClient
from safety.errors import CheckpointError, IdentityError
from safety.governor_process import NAME, NAMESPACE, GovernorActor, keep_telling
from safety.identity import identity_in
from safety.metrics import METRICS
from safety.office import Office
from safety.places import recorded_in
from safety.promoter import Promoter
from tests.safety.fake_ray import governing
from tests.safety.fakes import claim, limits, measured, request


@pytest.fixture
def ray(monkeypatch):
    with governing(monkeypatch) as fake:
        yield fake


@pytest.fixture
def url(made_once, tmp_path):
    """A ledger with an open sweep `s`, which a governor has yet to open."""
    (tmp_path / "ledger.db").write_bytes(made_once.read_bytes())
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def ended(ray):
    """The cluster after somebody has ended its governor for good."""
    ray.kill(ray.get_actor(NAME, NAMESPACE))


# --- the actor and its client


def test_a_trial_lives_from_its_admission_to_its_end_through_the_actor(ray, url):
    governor = connect(url)
    assert governor.admit(request()) == Allow()
    grant = governor.activate("s/1", "d1", "w1", measured(claim()))
    assert governor.renew(grant.lease, grant.fence) == 15_000
    governor.settle(grant.lease, grant.fence, grant.used(reports=5, elapsed_ms=10))
    spent = {budget.resource: budget.spent for budget in governor.status("s").budgets}
    assert (spent["trials"], spent["train_gflop"]) == (1, 10)
    assert governor.ledger_url() == url


def test_an_error_of_the_governor_is_raised_where_it_was_asked(ray, url):
    governor = connect(url)
    governor.admit(request())
    with pytest.raises(KeyReused):
        governor.admit(request(digest="another"))


def test_the_actor_stays_for_every_driver_and_is_started_again_on_the_host_of_its_ledger(ray, url):
    connect(url)
    connect(url)
    (options,) = ray.options
    assert (options["name"], options["namespace"], options["lifetime"]) == (NAME, NAMESPACE, "detached")
    assert (options["max_restarts"], options["num_cpus"]) == (-1, 0)
    assert list(options["resources"]) == ["node:__internal_head__"]


def test_an_actor_is_served_as_others_are_and_shows_its_ledger_without_the_password(monkeypatch, tmp_path):
    served = []
    monkeypatch.setattr("safety.governor_process.be_served_as_others_are", lambda: served.append(True))
    actor = GovernorActor("postgresql+psycopg://me:secret@host/db", str(tmp_path))
    assert repr(actor) == "Governor(postgresql+psycopg://me:***@host/db)"
    assert served == [True]


def test_a_ledger_that_can_not_be_opened_yet_is_tried_again_at_the_next_question(ray, tmp_path):
    (tmp_path / "home").write_text("in the way")
    url = f"sqlite:///{tmp_path / 'home' / 'ledger.db'}"
    governor = connect_unasked(ray, url, tmp_path)
    with pytest.raises(LedgerError, match="cannot be opened"):
        governor.ledger_url()
    (tmp_path / "home").unlink()
    assert governor.ledger_url() == url


def connect_unasked(ray, url, state):
    """A client of a governor that has answered nothing so far."""
    handle = ray.remote(GovernorActor).remote(url, str(state))
    return GovernorClient((url, str(state)), identity_in(state).public, handle)


def test_many_first_questions_open_the_ledger_once(ray, url, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("safety.governor_process.Office", lambda *_: opened.append(True) or "the office")
    telling = []
    monkeypatch.setattr("safety.governor_process.keep_telling", telling.append)
    actor = GovernorActor(url, str(tmp_path))

    async def at_once():
        return await asyncio.gather(*(actor._opened() for _ in range(3)))

    assert asyncio.run(at_once()) == ["the office"] * 3
    assert opened == [True]
    assert telling == ["the office"]


def test_the_metrics_of_a_governors_ledger_are_told_in_a_thread_of_their_own(monkeypatch):
    told, over = [], threading.Event()

    class Exporter:
        def __init__(self, metrics, read):
            assert metrics is METRICS
            self._read = read

        def keep_telling(self, _):
            told.append((self._read(), threading.current_thread()))
            over.set()

    monkeypatch.setattr("safety.governor_process.Exporter", Exporter)
    monkeypatch.setattr("safety.governor_process.samples", lambda observed: f"samples of {observed}")
    keep_telling(SimpleNamespace(observe=lambda: "the ledger"))
    assert over.wait(10)
    ((said, thread),) = told
    assert (said, thread.daemon, thread.name) == ("samples of the ledger", True, "metrics")


# --- each of the client's methods

GRANT = (7, 2)
ASKED = {
    "open_sweep": ("s", "limits", None, False),
    "record_drill": (("canary",), 2000, "ann"),
    "close_sweep": ("s", {"s/1": "usage"}),
    "freeze": ("s", "odd"),
    "admit": ("request",),
    "readmit": ("request",),
    "confirm": (*GRANT, "measured"),
    "activate": ("s/1", "d1", "w1", None),
    "observe": (*GRANT, 5),
    "renew": GRANT,
    "settle": (*GRANT, "usage"),
    "report": ("s/1", "report"),
    "void": ("s/1", "pruned"),
    "revoke": ("s/1", "operator", "odd"),
    "judge_capability": ("s", "s/1", {"reasoning": 0.5}),
    "attest": (*GRANT, "evaluated"),
    "is_attested": ("s", "a digest"),
    "record_incident": ("s", "s/1", "evidence", "odd"),
    "fail": ("s", "s/1", "it raised"),
    "verdict": ("s/1",),
    "pulse": ("s",),
    "state": ("s",),
    "status": ("s",),
    "sign_into": (("/mnt/a",),),
    "ledger_url": (),
}
NO_ANSWER = {
    "close_sweep", "freeze", "confirm", "observe", "settle", "void", "revoke", "record_incident", "fail",
    "sign_into", "decide", "attest",
}  # fmt: skip
# which driver asks is told too
BY_A_DRIVER = {"open_sweep", "close_sweep"}
# what the governor asks its ledger in the same words
ASKED_OF_THE_LEDGER = {
    "judge_improvement": ("s", 1.0, 2.0, "min"),
    "promote": ("s", "s/1", 1.0, 2.0, "max", None, "r"),
    "ask_promotion": ("s", "champion", "ann", "better", "max_generations"),
    "decide": ("decision",),
    "request": ("ab12",),
    "approval": ("s",),
    "champions": ("family",),
    "promotions": ("family",),
    "shut_down": ("family", "fire", "ann"),
    "incident": (1,),
    "standing_incident": ("family",),
    "revoke_leases": (1, "loop"),
    "leases_left": (1,),
    "take_step": (1, "saved", "loop", "folder"),
    "revert": (1, "loop"),
    "note_once": ("k", "denial"),
    "rollback": ("family", "a1", "worse", "dan"),
    "current_champion": ("family",),
    "audit_page": (7,),
}
ASKED_OF_THE_GOVERNOR = ASKED | ASKED_OF_THE_LEDGER


@pytest.fixture
def echoing(ray, tmp_path):
    """A client of an actor that answers with what it was asked."""
    identity = identity_in(tmp_path)
    heard = []

    class Echo:
        def ask(self, question):
            heard.append(read(question))
            return sealed(identity, question, heard[-1])

    client = GovernorClient(("url", "state"), identity.public, ray.remote(Echo).remote())
    client.heard = heard
    return client


@pytest.mark.parametrize("method", ASKED_OF_THE_GOVERNOR)
def test_a_method_of_the_client_is_the_governors_with_the_same_arguments(echoing, method):
    asked = ASKED_OF_THE_GOVERNOR[method]
    told = (*asked, echoing._driver) if method in BY_A_DRIVER else asked
    answer = getattr(echoing, method)(*asked)
    assert echoing.heard == [(method, told)]
    assert answer == (None if method in NO_ANSWER else (method, told))
    theirs = Office if method == "sign_into" else Governor
    inspect.signature(getattr(theirs, method)).bind(None, *told)


@pytest.mark.parametrize("method", ASKED_OF_THE_LEDGER)
def test_a_governor_asks_its_ledger_in_the_same_words(method):
    heard = []

    class Echo:
        def __getattr__(self, name):
            return lambda *arguments: heard.append((name, arguments)) or "its answer"

    answer = getattr(Governor(Echo()), method)(*ASKED_OF_THE_LEDGER[method])
    assert heard == [(method, ASKED_OF_THE_LEDGER[method])]
    assert answer == (None if method in NO_ANSWER else "its answer")
    inspect.signature(getattr(Ledger, method)).bind(None, *ASKED_OF_THE_LEDGER[method])


def test_all_of_the_clients_methods_are_tried():
    assert public_of(GovernorClient) == set(ASKED_OF_THE_GOVERNOR)
    assert public_of(Promoter) | public_of(EmergencyClient) == set(ASKED_OF_THE_LEDGER)


def public_of(client):
    return {name for name in dir(client) if not name.startswith("_")}


def test_a_sweep_that_one_driver_has_opened_again_is_closed_by_no_other(ray, url):
    first, second = connect(url), connect(url)
    for driver in (first, second):
        driver.open_sweep("mine", limits())
    with pytest.raises(LedgerError, match="sweep mine: opened by another driver, which alone closes it"):
        first.close_sweep("mine", {})
    second.close_sweep("mine", {})
    assert first.state("mine") == "closed"


# --- who has the governor's name


def test_a_governor_that_was_ended_for_good_is_started_again_by_whoever_needs_it(ray, url):
    governor = connect(url)
    governor.freeze("s", "odd")
    ended(ray)
    assert governor.state("s") == "frozen"


class Impostor:
    """Says that it is the governor, and yes to everything."""

    def __init__(self, *about):
        self._about = about

    def about(self):
        return self._about

    def ask(self, question):
        return b"yes", bytes(64)


def test_another_actor_that_takes_the_governors_name_is_refused(ray, url):
    governor = connect(url)
    ended(ray)
    ray.remote(Impostor).options(name=NAME, namespace=NAMESPACE).remote(url, governor.public)
    with pytest.raises(IdentityError, match="another process has its name"):
        governor.state("s")
    for reach in (connect, connect_to_any):
        with pytest.raises(IdentityError, match="another process has its name"):
            reach(url)


@pytest.mark.parametrize("says", [("one",), None])
def test_an_actor_that_does_not_say_what_a_governor_says_is_none(ray, url, says):
    class Stranger:
        def about(self):
            return says

    ray.remote(Stranger).options(name=NAME, namespace=NAMESPACE).remote()
    with pytest.raises(IdentityError, match="another actor than a governor has the governor's name"):
        connect(url)


def test_an_actor_that_can_not_be_asked_is_no_governor(ray, url, tmp_path):
    class Mute:
        """Has neither method."""

    handle = ray.remote(Mute).options(name=NAME, namespace=NAMESPACE).remote()
    with pytest.raises(IdentityError, match="another actor than a governor has the governor's name"):
        connect(url)
    with pytest.raises(IdentityError, match="another process has its name"):
        GovernorClient((url, str(tmp_path)), "0" * 64, handle).state("s")


def test_a_governor_with_another_key_than_the_pinned_one_is_refused(ray, url):
    with pytest.raises(IdentityError, match="isn't signed by its key 0000"):
        connect(url, key="0" * 64)
    pinned = connect(url).public
    assert connect(url, key=pinned).public == pinned


def test_the_key_in_the_ledgers_folder_is_pinned_and_not_what_the_actor_shows(ray, url, tmp_path):
    other = identity_in(tmp_path / "other")
    identity_in(tmp_path)
    ray.remote(Impostor).options(name=NAME, namespace=NAMESPACE).remote(url, other.public)
    with pytest.raises(IdentityError, match=f"its key {identity_in(tmp_path).public[:12]}"):
        connect(url)


def test_a_governor_of_another_ledger_is_an_error_and_whoever_wants_any_takes_it(ray, url, tmp_path):
    connect(url)
    other = f"sqlite:///{tmp_path / 'other' / 'ledger.db'}"
    with pytest.raises(LedgerError, match=f"keeps the ledger {url}, asked for was {other}"):
        connect(other)
    assert connect_to_any(other).ledger_url() == url


def test_whoever_wants_any_governor_starts_one_where_there_is_none(ray, url):
    assert connect_to_any(url).ledger_url() == url


def test_a_ledger_that_is_no_file_has_its_governors_key_in_the_folder_that_is_named(
    ray, tmp_path, monkeypatch
):
    started = []

    def actor(*home):
        started.append(home)
        return SimpleNamespace(about=SimpleNamespace(remote=lambda: ray.run(lambda: ("elsewhere", "k"), ())))

    monkeypatch.setattr("safety.actor.governor_actor", actor)
    server = "postgresql+psycopg://host/db"
    for state in (tmp_path, None):
        with pytest.raises(LedgerError):
            connect(server, state=state)
    assert started[0] == (server, str(tmp_path))
    assert started[1][1].endswith("/rsi_results")


def test_the_audit_is_signed_into_the_folders_that_a_driver_names(ray, url, tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        connect(url, checkpoints=[folder])
    assert recorded_in(url, tmp_path) == folders
    with pytest.raises(CheckpointError, match="no such folder on the governor's host"):
        connect_to_any(url, checkpoints=[tmp_path / "third"])


# --- silence


def test_a_governor_that_gives_no_answer_in_time_is_unreachable(ray, url):
    class Slow:
        async def ask(self, question):
            await asyncio.sleep(60)

    hasty = GovernorClient((url, "state"), "key", ray.remote(Slow).remote(), answer_seconds=0.01)
    with pytest.raises(GovernorUnreachable, match=r"the governor gave no answer to state within 0.01 s"):
        hasty.state("s")


def test_a_cluster_that_carries_no_question_is_told_in_one_line(ray, url, tmp_path):
    class Cut:
        def ask(self, question):
            raise RayError("the node is gone\nand more")

        about = ask

    handle = ray.remote(Cut).options(name=NAME, namespace=NAMESPACE).remote()
    with pytest.raises(GovernorUnreachable, match=r"can't be reached for state: the node is gone$"):
        GovernorClient((url, str(tmp_path)), "key", handle).state("s")
    handle.actor.about = lambda: handle.actor.ask(None)
    with pytest.raises(GovernorUnreachable, match=r"the governor can't be reached: the node is gone$"):
        connect(url)
