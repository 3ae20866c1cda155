"""The small parts of a run of the loop; tests/integration has it whole."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rsi_ray import Sweep
from rsi_ray import recursion as module
from rsi_ray.alerts import AlertsConfig
from rsi_ray.champion import ChampionStore
from rsi_ray.disk import nothing_empty
from rsi_ray.emergency_ports import ports_of
from rsi_ray.errors import RunError
from rsi_ray.loop import Ending, Why
from rsi_ray.observer import terminated_as_interrupted
from rsi_ray.recursion import (
    LOOP_FILE,
    Recursion,
    _first_generation,
    _outcome,
    _run_to_its_end,
)
from rsi_ray.search_engine import ArchitectureSearchEngine
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from safety import Ledger, SafetyError, artifact_digest
from search_spaces import MLPSpace
from tests.rsi_ray.champions import open_lineage, promote
from tests.rsi_ray.test_self_modification import measured

TASK = breast_cancer_task(BreastCancerOptions(holdout_size=32))
BOUNDS = {"max_params": 100_000, "max_flops": 1e9, "max_memory": 1e9}
ENDING = Ending(why=Why.COMPLETE, text="")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    open_lineage(opened)
    yield opened
    opened.close()


@pytest.fixture
def store(ledger: Ledger, tmp_path: Path) -> ChampionStore:
    return ChampionStore(tmp_path / "line", ledger)


def recursion(folder: Path, **changes):
    sweep = Sweep(MLPSpace(heads=TASK.heads, batch_size=32), TASK, {"bounds": BOUNDS}, storage=folder)
    return Recursion(sweep=sweep, base={}, generations=2, **changes)


def engine(folder: Path, **changes):
    return ArchitectureSearchEngine(sweep=replace(recursion(folder).sweep, **changes), run="loop-1")


def test_which_generation_a_run_may_promote_first_stays_as_it_was_when_it_began(tmp_path):
    loop = recursion(tmp_path, about={"config": {"name": "x"}})
    assert _first_generation(tmp_path, 3, loop, engine(tmp_path)) == 3
    assert json.loads((tmp_path / LOOP_FILE).read_text()) == {"first_generation": 3, "config": {"name": "x"}}
    assert _first_generation(tmp_path, 4, loop, engine(tmp_path)) == 3


def test_a_run_that_is_gone_on_with_takes_gpus_to_be_as_when_it_began(tmp_path, monkeypatch):
    monkeypatch.setattr("rsi_ray.search_engine.smallest_gpu", lambda: 10**12)
    _first_generation(tmp_path, 1, recursion(tmp_path), engine(tmp_path, gpus="auto"))
    monkeypatch.setattr("rsi_ray.search_engine.smallest_gpu", lambda: 0)
    resumed = engine(tmp_path, gpus="auto")
    _first_generation(tmp_path, 1, recursion(tmp_path), resumed)
    assert resumed.sweep.resources.gpu_memory == 10**12


def test_a_file_of_a_run_that_is_damaged_is_named(tmp_path):
    (tmp_path / LOOP_FILE).write_text("{")
    with pytest.raises(RunError, match=r"loop\.json can't be read"):
        _first_generation(tmp_path, 1, recursion(tmp_path), engine(tmp_path))


def test_a_run_that_never_began_leaves_no_empty_folder(tmp_path):
    empty, full = tmp_path / "empty", tmp_path / "full"
    for folder in (empty, full):
        folder.mkdir()
    (full / "x").touch()
    for folder in (empty, full):
        with pytest.raises(RunError), nothing_empty(folder):
            raise RunError("refused")
    assert (empty.exists(), full.exists()) == (False, True)


def test_between_sweeps_sigterm_interrupts_and_afterwards_is_what_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def run():
        with terminated_as_interrupted():
            seen.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [True]


def test_an_outcome_names_the_champions_that_stand_the_base_first(tmp_path, store, ledger):
    assert _outcome(tmp_path, store, ENDING).artifact is None
    store.adopt_base(measured(0, 0.5, inherits=False))
    first = store.stage(measured(1, 0.6))
    promote(store, ledger, first)
    found = _outcome(tmp_path, store, ENDING)
    assert [(one.generation, one.score) for one in found.champions] == [(0, 0.5), (1, 0.6)]
    assert (found.params, found.artifact) == ((2, 2), first.path)


def test_a_shutdown_works_on_the_champions_on_disk(tmp_path, store, ledger):
    plan = recursion(tmp_path).sweep.checked_plan()
    ports = ports_of(plan, ledger, "postgresql://ann:secret@host/db", store, lambda: ["a line"])
    assert (ports.weights(), ports.revert("")) == (None, None)
    base = store.adopt_base(measured(0, 0.5, inherits=False))
    first = store.stage(measured(1, 0.6))
    promote(store, ledger, first)
    assert ports.weights() == first.path
    ledger.rollback("line", "", "worse", "ann")
    reverted = ports.revert("")
    assert reverted is not None
    assert artifact_digest(reverted) == base.artifact
    assert json.loads((store.folder / "current.json").read_text())["artifact"] == base.artifact
    (change,) = ports.history()
    assert (change["generation"], change["rolled_back"]) == (1, True)
    assert json.dumps(change)
    assert "secret" not in ports.ledger
    assert (list(ports.log()), ports.alerts) == (["a line"], AlertsConfig())


class Stopped:
    """A loop that ends as it is told, on a governor whose lineage is shut down or isn't."""

    def __init__(self, standing=None):
        self.governor = self.store = self.engine = self
        self.run, self.lineage, self.standing, self.told = "loop-1", "line", standing, []

    def standing_incident(self, lineage):
        return self.standing

    def current(self):
        return None

    def shut_down(self, reason):
        self.told.append(reason)


INCIDENT = SimpleNamespace(reason="a fire", number=1)


@pytest.mark.parametrize("ends", [Ending(why=Why.STOPPED, text="frozen"), SafetyError("frozen")])
def test_a_shutdown_that_came_from_elsewhere_is_completed_at_once(tmp_path, monkeypatch, ends):
    monkeypatch.setattr(module, "_run", lambda *_: ends if isinstance(ends, Ending) else raised(ends))
    loop, told = Stopped(INCIDENT), []
    ending = _run_to_its_end(recursion(tmp_path, tell=told.append), loop, 1)
    assert ending == Ending(why=Why.SHUT_DOWN, text="shut down: a fire")
    assert loop.told == ["a fire"]
    assert [event.text for event in told] == [ending.text]


def test_a_shutdown_of_its_own_is_completed_once_and_where_there_is_none_it_ends_as_it_does(
    tmp_path, monkeypatch
):
    own = Ending(why=Why.SHUT_DOWN, text="gains")
    loop = Stopped(INCIDENT)
    monkeypatch.setattr(module, "_run", lambda *_: own)
    assert (_run_to_its_end(recursion(tmp_path), loop, 1), loop.told) == (own, [])
    monkeypatch.setattr(module, "_run", lambda *_: raised(SafetyError("out of budget")))
    with pytest.raises(SafetyError, match="out of budget"):
        _run_to_its_end(recursion(tmp_path), Stopped(), 1)


def test_an_interrupt_between_sweeps_ends_it_with_a_word_that_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_run", lambda *_: raised(KeyboardInterrupt()))
    told = []
    ending = _run_to_its_end(recursion(tmp_path, tell=told.append), Stopped(), 1)
    assert ending.why is Why.STOPPED
    assert ending.text == "interrupted; `rsi-ray run --resume loop-1` goes on"
    assert [(event.kind, event.text) for event in told] == [("ended", ending.text)]


def raised(error):
    raise error
