"""States of candidates in training, without any training."""

from rsi_ray.states import Kept, States, kept_in


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def keep(states, digest, reports):
    states.keep(digest, reports, lambda path: path.write_text(f"{digest} {reports}"))


def test_a_state_is_kept_as_often_as_asked_and_the_newest_alone(tmp_path):
    clock = Clock()
    states = States(tmp_path / "states", 30, clock)
    assert states.begin("d1") is None
    found = []
    for reports in (1, 2, 3, 4):
        clock.now += 15
        keep(states, "d1", reports)
        found.append([kept.reports for kept in kept_in(tmp_path / "states")])
    assert found == [[], [2], [2], [4]]
    newest = Kept(digest="d1", reports=4, path=tmp_path / "states" / "d1-4.safetensors")
    assert states.begin("d1") == newest
    assert newest.path.read_text() == "d1 4"


def test_time_counts_from_each_candidates_begin(tmp_path):
    clock = Clock()
    states = States(tmp_path, 30, clock)
    clock.now += 40
    states.begin("d1")
    keep(states, "d1", 1)
    assert list(kept_in(tmp_path)) == []


def test_candidates_do_not_touch_each_others_states(tmp_path):
    states = States(tmp_path, 0)
    keep(states, "d1", 1)
    keep(states, "d2", 7)
    states.forget("d1")
    assert [(kept.digest, kept.reports) for kept in kept_in(tmp_path)] == [("d2", 7)]
    assert states.begin("d1") is None


def test_of_two_states_the_one_with_more_reports_is_gone_on_from(tmp_path):
    for name in ("d1-9", "d1-10", "d1", "-3", "d1-x"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "d1-11.partial").touch()
    assert States(tmp_path, 0).begin("d1").reports == 10
