"""What a run leaves is repeated in a store, and comes back from there."""

import json
import logging
import time

import pytest

from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.errors import ArtifactStoreError, RunError
from rsi_ray.mirror import Mirror, bring_back, mirrored, of_loop, of_sweep


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(uri=f"file://{tmp_path}/share")


@pytest.fixture
def storage(tmp_path):
    (tmp_path / "runs" / "r").mkdir(parents=True)
    return tmp_path / "runs"


def write(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def files_of_a_loop(storage):
    write(storage / "r" / "loop.json", json.dumps({"first_generation": 1, "config": {"lineage": "line"}}))
    for name in (
        "r-g1-0123/run.json",
        "r-g1-0123/study.log",
        "r-g1-0123/evaluations/a.json",
        "champions/line/0-abc.safetensors",
        "champions/line/current.json",
        "learned/line.safetensors",
        "incidents/1-line/incident.json",
    ):
        write(storage / name)


class Failing:
    """A store that fails until it is mended."""

    def __init__(self, inner):
        self.inner, self.is_down, self.tries = inner, True, 0

    def __str__(self):
        return "s3://bucket"

    def put(self, source, name):
        self.tries += 1
        if self.is_down:
            raise ArtifactStoreError("artifacts s3://bucket: down")
        self.inner.put(source, name)


def test_what_a_sweep_leaves_is_in_the_store_at_its_end_and_nothing_else(store, storage):
    with mirrored(store, storage, of_sweep("r")):
        for name in ("run.json", "study.log", "results.parquet", "run.lock", "weights/a.safetensors"):
            write(storage / "r" / name)
        write(storage / "r" / ".run.json.partial")
        write(storage / "other" / "run.json")
        write(storage / "ledger.db")
        write(storage / "key.pem")
    assert sorted(store.sizes()) == ["r/results.parquet", "r/run.json", "r/study.log"]


def test_the_file_of_alerts_which_may_hold_a_secret_is_not_repeated(store, storage):
    with mirrored(store, storage, of_loop("r", "line")):
        files_of_a_loop(storage)
        write(storage / "incidents" / "line.alerts.json")
    assert "incidents/line.alerts.json" not in store.sizes()
    assert "incidents/1-line/incident.json" in store.sizes()


def test_what_changes_while_it_runs_is_repeated_without_being_asked(store, storage, monkeypatch):
    monkeypatch.setattr("rsi_ray.mirror.SECONDS", 0.05)
    with mirrored(store, storage, of_sweep("r")):
        write(storage / "r" / "study.log", "1")
        until = time.monotonic() + 20
        while store.sizes() != {"r/study.log": 1} and time.monotonic() < until:
            time.sleep(0.05)
        write(storage / "r" / "study.log", "12")
        while store.sizes() != {"r/study.log": 2} and time.monotonic() < until:
            time.sleep(0.05)
        assert store.sizes() == {"r/study.log": 2}


def test_whoever_waits_for_a_store_that_fails_waits_no_longer_than_they_say(store, storage, caplog):
    write(storage / "r" / "run.json")
    failing = Failing(store)
    mirror = Mirror(failing, storage, of_sweep("r"))
    mirror.start()
    begun = time.monotonic()
    assert not mirror.flush(30)
    assert not mirror.flush(30)  # known to fail: nobody waits
    assert time.monotonic() - begun < 5
    failing.is_down = False
    mirror.close(30)
    assert list(store.sizes()) == ["r/run.json"]


def test_a_store_that_fails_is_told_of_once_and_once_again_when_it_works(store, storage, caplog, monkeypatch):
    monkeypatch.setattr("rsi_ray.mirror.SECONDS", 0.02)
    caplog.set_level(logging.WARNING)
    write(storage / "r" / "run.json")
    failing = Failing(store)
    mirror = Mirror(failing, storage, of_sweep("r"))
    mirror.start()
    until = time.monotonic() + 20
    while failing.tries < 4 and time.monotonic() < until:
        time.sleep(0.02)
    failing.is_down = False
    mirror.close(20)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "down; the run goes on" in told[0]
    assert "takes files again" in told[1]


def test_a_file_that_can_not_be_repeated_keeps_no_other_one_back(store, storage, monkeypatch):
    write(storage / "r" / "run.json")
    write(storage / "r" / "study.log")
    put = ArtifactStore.put

    def failing(self, source, name):
        if name == "r/run.json":
            raise OSError(5, "Input/output error")
        put(self, source, name)

    monkeypatch.setattr(ArtifactStore, "put", failing)
    mirror = Mirror(store, storage, of_sweep("r"))
    assert "Input/output error" in mirror._round()
    assert store.at("r").names() == ["study.log"]


def test_a_storage_that_can_not_be_listed_is_a_fault_of_that_round_alone(store, storage, monkeypatch):
    write(storage / "r" / "run.json")
    mirror = Mirror(store, storage, of_sweep("r"))
    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "glob", lambda *_: (_ for _ in ()).throw(OSError(5, "away")))
        assert "can't be read" in mirror._round()
    assert mirror._round() == ""


def test_a_store_that_fails_to_the_end_is_told_of_with_where_the_files_are(store, storage, caplog):
    write(storage / "r" / "run.json")
    mirror = Mirror(Failing(store), storage, of_sweep("r"))
    mirror.start()
    mirror.close(1)
    assert str(storage) in caplog.records[-1].getMessage()


def test_a_run_of_the_loop_comes_back_with_its_generations_and_its_lineage(store, storage, tmp_path):
    with mirrored(store, storage, of_loop("r", "line")):
        files_of_a_loop(storage)
    new = tmp_path / "new"
    bring_back(store, new, "r")
    found = sorted(str(path.relative_to(new)) for path in new.rglob("*") if path.is_file())
    left = sorted(str(path.relative_to(storage)) for path in storage.rglob("*") if path.is_file())
    assert found == left


def test_what_is_here_stays_as_it_is_when_a_run_comes_back(store, storage, tmp_path):
    with mirrored(store, storage, of_sweep("r")):
        write(storage / "r" / "run.json", "old")
        write(storage / "r" / "study.log", "old")
    write(storage / "r" / "run.json", "new")
    (storage / "r" / "study.log").unlink()
    assert bring_back(store, storage, "r") == ["r/study.log"]
    assert (storage / "r" / "run.json").read_text() == "new"


def test_a_run_that_is_nowhere_is_told_of_with_both_places(store, storage):
    with pytest.raises(RunError, match=r"run x: neither in .*runs nor in file://.*share"):
        bring_back(store, storage, "x")


def test_there_is_no_mirror_without_a_store(storage):
    with mirrored(None, storage, of_sweep("r")) as mirror:
        assert mirror is None
