"""Files in Google's and in Azure's storage, by servers of the tests' own that speak their interfaces."""

from __future__ import annotations

import base64
import logging
import os
import shutil
import socket
import subprocess
import time

import pytest
from pyarrow import fs

from rsi_ray.artifact_store import AZURE_KEY, ArtifactStore, with_key
from rsi_ray.errors import ArtifactStoreError
from rsi_ray.states import Kept, kept_in
from rsi_ray.stored_weights import bring_weights, export_weights, prune_stored
from tests.ports import free_port

BUCKET, ACCOUNT = "bucket", "account"
START_SECONDS = 60


@pytest.fixture(scope="module")
def google():
    emulator = pytest.importorskip(
        "gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed"
    )
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    port = free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    yield f"gs://anonymous@{BUCKET}/runs?scheme=http&endpoint_override=127.0.0.1:{port}"
    server.stop()


@pytest.fixture(scope="module")
def azure():
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite is not installed: npm install --global azurite")
    key, port = base64.b64encode(b"of the tests").decode(), free_port()
    words = [program, "--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--blobPort", str(port)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(AZURE_KEY, key)
        server = subprocess.Popen(words, env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"})
        try:
            uri = f"abfs://{ACCOUNT}@127.0.0.1:{port}/{BUCKET}?enable_tls=false"
            wait_for(port)
            with_key(fs.FileSystem.from_uri(uri)[0], key).create_dir(BUCKET)
            yield uri.replace(f"/{BUCKET}", f"/{BUCKET}/runs")
        finally:
            server.kill()
            server.wait()


def wait_for(port):
    until = time.monotonic() + START_SECONDS
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < until, "the server does not listen"
            time.sleep(0.1)


@pytest.fixture(params=["google", "azure"])
def store(request, tmp_path):
    return ArtifactStore(uri=request.getfixturevalue(request.param)).at(tmp_path.name)


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
