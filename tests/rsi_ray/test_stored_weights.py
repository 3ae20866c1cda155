"""Weights of candidates in a store: written whole, pruned, and brought to the driver."""

import time

import pytest

from rsi_ray import stored_weights
from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.errors import ArtifactStoreError
from rsi_ray.stored_weights import Taken, bring_weights, export_weights, prune_stored, settle_weights


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(uri=f"file://{tmp_path}/share").at("run").at("weights")


def export_to(store, *trials):
    for trial in trials:
        export_weights(store, trial, lambda path: path.write_bytes(b"weights"))


def test_weights_go_into_a_folder_that_all_share(tmp_path):
    export_to(tmp_path / "w", "a")
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["a.safetensors"]


def test_weights_go_into_a_store(store):
    export_to(store, "a", "b")
    assert store.sizes() == {"a.safetensors": 7, "b.safetensors": 7}


def test_a_store_that_takes_no_weights_fails_the_candidate_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(ArtifactStore, "patiently", lambda _store, act: act())
    (tmp_path / "share").write_text("no folder")
    with pytest.raises(
        ArtifactStoreError, match=r"^artifacts file://\S+ run: a.safetensors can't be written: .*$"
    ):
        export_to(ArtifactStore(uri=f"file://{tmp_path}/share").at("run"), "a")


def test_the_weights_that_are_kept_stay_and_all_others_go(store):
    export_to(store, "a", "b", "c")
    assert prune_stored(store, {"a", "never written"}) == 7
    assert store.names() == ["a.safetensors"]


def test_kept_weights_are_brought_and_those_that_are_here_are_not_fetched_again(store, tmp_path):
    export_to(store, "a", "b", "c")
    (tmp_path / "b.safetensors").write_text("here")
    bring_weights(store, tmp_path, {"a", "b", "never written"})
    assert (tmp_path / "a.safetensors").read_bytes() == b"weights"
    assert (tmp_path / "b.safetensors").read_text() == "here"
    assert not (tmp_path / "c.safetensors").exists()


def test_a_store_that_fails_at_the_end_is_told_of_and_ends_nothing(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(stored_weights, "SECONDS_TO_BRING", 0.1)

    def names(self):
        raise ArtifactStoreError("artifacts s3://bucket: down")

    monkeypatch.setattr(ArtifactStore, "names", names)
    settle_weights(ArtifactStore(uri="s3://bucket"), tmp_path, {"a"})
    assert "down; the weights stay there" in caplog.text


def test_what_a_sweep_takes_is_looked_at_in_a_thread(store, tmp_path):
    export_to(store, "a", "b")
    checkpoints = ArtifactStore(uri=f"file://{tmp_path}/share").at("run").at("tune")
    export_to(checkpoints, "c")
    taken, until = Taken(store, checkpoints), time.monotonic() + 20
    assert taken.prune({"a"}) == 0  # nobody has looked yet
    while taken.prune({"a"}) != 14 and time.monotonic() < until:
        time.sleep(0.02)
    assert taken.prune({"a"}) == 14
    assert store.names() == ["a.safetensors"]
