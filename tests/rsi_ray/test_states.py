"""States of candidates in training, without any training: in a folder, and in a store."""

import pytest

from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.states import Kept, States, kept_in


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(params=["folder", "store"])
def place(request, tmp_path):
    return tmp_path / "s" if request.param == "folder" else ArtifactStore(uri=f"file://{tmp_path}", below="s")


def keep(states, digest, reports):
    states.keep(digest, reports, lambda path: path.write_text(f"{digest} {reports}"))


def test_a_state_is_kept_as_often_as_asked_and_the_newest_alone(place):
    clock = Clock()
    states = States(place, 30, clock)
    assert states.begin("d1") is None
    found = []
    for reports in (1, 2, 3, 4):
        clock.now += 15
        keep(states, "d1", reports)
        found.append([kept.reports for kept in kept_in(place)])
    assert found == [[], [2], [2], [4]]


def test_another_process_reads_the_newest_state_and_goes_on_from_it(place):
    keep(States(place, 0), "d1", 4)
    states, read = States(place, 0), []
    kept = states.begin("d1")
    states.read(kept, lambda path: read.append(path.read_text()))
    keep(states, "d1", 5)
    assert (kept, read) == (Kept(digest="d1", reports=4), ["d1 4"])
    assert kept_in(place) == [Kept(digest="d1", reports=5)]
    states.forget()
    assert kept_in(place) == []


def test_time_counts_from_each_candidates_begin(place):
    clock = Clock()
    states = States(place, 30, clock)
    clock.now += 40
    states.begin("d1")
    keep(states, "d1", 1)
    assert kept_in(place) == []


def test_candidates_do_not_touch_each_others_states(place):
    first, second = States(place, 0), States(place, 0)
    keep(first, "d1", 1)
    keep(second, "d2", 7)
    first.forget()
    assert kept_in(place) == [Kept(digest="d2", reports=7)]
    assert first.begin("d1") is None


def test_of_two_states_the_one_with_more_reports_is_gone_on_from(tmp_path):
    for name in ("d1-9", "d1-10", "d1", "-3", "d1-x"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "d1-11.safetensors.partial").touch()
    assert States(tmp_path, 0).begin("d1").reports == 10


def test_a_store_that_can_not_be_reached_costs_the_state_alone(tmp_path, caplog):
    (tmp_path / "s").write_text("a file where the folder should be")
    states = States(ArtifactStore(uri=f"file://{tmp_path}/s", below="states"), 0)
    keep(states, "d1", 1)
    assert states.begin("d1") is None
    assert "it goes on" in caplog.text


def test_without_states_nothing_is_written_or_looked_for(place):
    keep(States(place, 0), "d1", 1)
    states = States(place, None)
    assert states.begin("d1") is None
    keep(states, "d1", 2)
    assert [kept.reports for kept in kept_in(place)] == [1]
