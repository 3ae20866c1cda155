import pytest

from safety.governance import marker, sweep_of_marker
from safety.ungoverned import TuneActor, incident, ungoverned


def actor(name="a", says="", pid=7, group=""):
    return TuneActor(
        actor=name, class_name="ImplicitFunc", says=says, pid=pid, node="10.0.0.1", job="01", group=group
    )


@pytest.mark.parametrize("sweep", ["s", "a/b", "x) y("])
def test_a_marker_names_its_sweep(sweep):
    assert sweep_of_marker(marker(sweep, "1f2_00001")) == sweep


@pytest.mark.parametrize("text", ["s-g3-ab12 depth1 gelu", "a/b", "(other/2)", "Governed(other/2)", "x/y)"])
def test_a_text_behind_a_marker_gives_it_no_other_sweep(text):
    assert sweep_of_marker(f"{marker('s', '1f2_00001')} {text}") == "s"


@pytest.mark.parametrize("says", ["", "train", "Governed(", "Governed(s)", "s/1", "xGoverned(s/1)"])
def test_what_is_no_marker_names_none(says):
    assert sweep_of_marker(says) is None


def test_an_actor_without_a_lease_and_without_a_marker_is_ungoverned():
    plain = actor(says="train")
    assert ungoverned([plain], {"8@10.0.0.1", "7@10.0.0.2"}, {"s"}) == (plain,)


def test_the_holder_of_a_lease_is_governed_whatever_it_says():
    assert ungoverned([actor(says="train")], {"7@10.0.0.1"}, set()) == ()


def test_a_worker_between_two_leases_is_governed_by_its_marker():
    assert ungoverned([actor(says=marker("s", "1"))], set(), {"s"}) == ()


def test_a_marker_of_a_sweep_that_is_closed_or_unknown_is_none():
    boasts = actor(says=marker("other", "1"))
    assert ungoverned([boasts], set(), {"s"}) == (boasts,)


def test_what_a_governed_trial_starts_is_governed_with_it():
    trial, started = actor("a", marker("s", "1"), 7, "g"), actor("b", "", 8, "g")
    assert ungoverned([started, trial], set(), {"s"}) == ()


def test_what_an_ungoverned_trial_starts_is_named_too_and_no_group_is_no_bond():
    lone, trial, started = actor("a", "", 6), actor("b", "train", 7, "g"), actor("c", "", 8, "g")
    governed = actor("d", marker("s", "1"), 9)
    assert ungoverned([lone, trial, started, governed], set(), {"s"}) == (lone, trial, started)


@pytest.mark.parametrize(("says", "named"), [("train", "train: "), ("", "ImplicitFunc: ")])
def test_an_incident_names_the_actor_and_its_process(says, named):
    denial = incident(actor(says=says))
    assert (denial.rule, denial.reason) == (
        "ungoverned",
        f"{named}a trial of Ray Tune without a lease, actor a of job 01, process 7 on 10.0.0.1",
    )
