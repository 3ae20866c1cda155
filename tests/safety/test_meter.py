import sys
from functools import partial

import pytest

from safety import meter
from safety.meter import BUILT_IN, Counted, Meters, found_meters, when_imported

LIBRARY, OTHER = "a_measured_library", "another_one"
made = []


class FakeMeter:
    def __init__(self):
        self.judges = []
        made.append(self)

    def begin(self, judge):
        self.judges.append(judge)


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    for name in (LIBRARY, OTHER):
        (tmp_path / f"{name}.py").write_text("ready = True")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, LIBRARY, raising=False)
    made.clear()
    yield
    for name in (LIBRARY, OTHER):
        sys.modules.pop(name, None)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, meter._Watcher)]


def imports():
    return __import__(LIBRARY)


def test_a_library_that_is_imported_already_is_told_of_at_once():
    imports()
    heard = []
    when_imported(LIBRARY, lambda: heard.append(1))
    assert heard == [1]


def test_a_library_is_told_of_when_it_has_run_and_works_as_ever():
    heard = []
    when_imported(LIBRARY, lambda: heard.append(sys.modules[LIBRARY].ready))
    __import__(OTHER)
    assert heard == []
    module = imports()
    assert (heard, module.ready) == ([True], True)
    assert module.__spec__.loader.get_source(LIBRARY) == "ready = True"
    imports()
    assert heard == [True]


def test_all_who_wait_for_a_library_are_told():
    heard = []
    for number in range(3):
        when_imported(LIBRARY, partial(heard.append, number))
    assert imports().ready
    assert sorted(heard) == [0, 1, 2]
    assert not [finder for finder in sys.meta_path if isinstance(finder, meter._Watcher)]


def test_a_library_that_is_not_there_is_missing_as_ever(monkeypatch):
    heard = []
    when_imported("no_such_library", lambda: heard.append(1))
    with pytest.raises(ModuleNotFoundError):
        __import__("no_such_library")
    assert heard == []


def test_a_meter_is_made_with_its_library_and_begins_with_the_trial_that_runs():
    meters = Meters([(LIBRARY, f"{__name__}:FakeMeter")])
    judges = [lambda counted: None, lambda counted: None]
    meters.begin(judges[0])
    assert made == []
    imports()
    meters.begin(judges[1])
    assert [one.judges for one in made] == [judges]


def test_a_meter_that_comes_before_any_trial_waits_for_one():
    imports()
    meters = Meters([(LIBRARY, f"{__name__}:FakeMeter")])
    assert made[0].judges == []
    meters.begin(print)
    assert made[0].judges == [print]


def test_meters_are_found_by_their_entry_points_or_are_the_built_in_one(monkeypatch):
    class Point:
        name, value = "numpy", "a:B"

    monkeypatch.setattr(meter, "entry_points", lambda group: [Point()] if group == "safety.meters" else [])
    assert found_meters() == (("numpy", "a:B"),)
    monkeypatch.setattr(meter, "entry_points", lambda group: [])
    assert found_meters() == BUILT_IN


def test_what_is_counted_is_a_plain_value():
    assert Counted(params=1, forward_flops=None, reason="no") == Counted(
        params=1, forward_flops=None, reason="no"
    )
