"""Files in Google's storage, by a server of the tests' own that speaks its API."""

from __future__ import annotations

import logging
import socket

import pytest

from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.errors import ArtifactStoreError
from rsi_ray.states import Kept, kept_in
from rsi_ray.stored_weights import bring_weights, export_weights, prune_stored

emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")

BUCKET = "bucket"


@pytest.fixture(scope="module")
def address():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def store(address, tmp_path):
    uri = f"gs://anonymous@{BUCKET}/runs?scheme=http&endpoint_override={address}"
    return ArtifactStore(uri=uri).at(tmp_path.name)


def test_a_file_is_put_found_fetched_and_deleted(store, tmp_path):
    store.check()
    assert (store.sizes(), store.names()) == ({}, [])
    (tmp_path / "sent").write_bytes(b"content" * 1000)
    store.put(tmp_path / "sent", "folder/a")
    assert (store.sizes(), store.names()) == ({"folder/a": 7000}, ["folder"])
    store.get("folder/a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()
    store.remove("folder/a")
    assert store.sizes() == {}
    with pytest.raises(ArtifactStoreError, match="folder/a can't be read"):
        store.get("folder/a", tmp_path / "back")


def test_weights_and_states_are_kept_there(store, tmp_path):
    weights, states = store.at("weights"), store.at("states")
    for trial in ("a", "b"):
        export_weights(weights, trial, lambda path: path.write_bytes(b"weights"))
    assert prune_stored(weights, {"b"}) == 7
    bring_weights(weights, tmp_path, {"b"})
    assert (tmp_path / "b.safetensors").read_bytes() == b"weights"
    kept = Kept(digest="d" * 64, reports=3)
    states.put(tmp_path / "b.safetensors", kept.name)
    assert list(kept_in(states)) == [kept]
    store.remove_all()
    assert store.names() == []
