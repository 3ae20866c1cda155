"""Ray Tune's storage: checkpoints in the store, the driver's own files in its folder."""

import pickle
import time

import pytest
from pyarrow import fs

from rsi_ray import tune_storage
from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.tune_storage import CheckpointStorage


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(uri=f"file://{tmp_path}/share").at("run")


@pytest.fixture
def files(store, tmp_path):
    # as a worker gets it
    return pickle.loads(pickle.dumps(fs.PyFileSystem(CheckpointStorage(store, tmp_path / "run"))))  # noqa: S301


@pytest.fixture
def root(store):
    return store.opened()[1]


def put_checkpoint(files, root, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state.safetensors").write_bytes(b"x" * 1000)
    target = f"{root}/tune/trial/checkpoint_000001"
    files.create_dir(target)
    fs.copy_files(str(tmp_path / "checkpoint"), target, destination_filesystem=files)
    return target


def test_a_checkpoint_is_in_the_store_and_comes_back_from_there(files, root, store, tmp_path):
    target = put_checkpoint(files, root, tmp_path)
    assert store.sizes() == {"tune/trial/checkpoint_000001/state.safetensors": 1000}
    (tmp_path / "back").mkdir()
    fs.copy_files(target, str(tmp_path / "back"), source_filesystem=files)
    assert (tmp_path / "back" / "state.safetensors").read_bytes() == b"x" * 1000
    assert not (tmp_path / "run").exists()


def test_the_drivers_own_files_stay_in_its_folder(files, root, store, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "experiment_state-1.json").write_text("{}")
    files.create_dir(f"{root}/tune")
    fs.copy_files(str(tmp_path / "state"), f"{root}/tune", destination_filesystem=files)
    listed = files.get_file_info(fs.FileSelector(f"{root}/tune"))
    assert [info.path for info in listed] == [f"{root}/tune/experiment_state-1.json"]
    assert files.open_input_stream(listed[0].path).read() == b"{}"
    assert (tmp_path / "run" / "tune" / "experiment_state-1.json").read_text() == "{}"
    assert store.sizes() == {}


def test_no_answer_but_of_a_checkpoints_files_is_asked_of_the_store(root, tmp_path, monkeypatch):
    handler = CheckpointStorage(ArtifactStore(uri=f"file://{tmp_path}/share").at("run"), tmp_path / "run")
    monkeypatch.setattr(handler, "_tried", lambda act: pytest.fail("the store was asked"))
    names = [".validate_storage_marker", "trial/checkpoint_000001", "trial/result.json"]
    infos = handler.get_file_info([f"{root}/tune/{name}" for name in names])
    assert [info.type for info in infos] == [fs.FileType.File, fs.FileType.Directory, fs.FileType.NotFound]


def test_an_old_checkpoint_is_deleted_by_and_by(files, root, store, tmp_path):
    files.delete_dir(put_checkpoint(files, root, tmp_path))
    until = time.monotonic() + 20
    while store.sizes() and time.monotonic() < until:
        time.sleep(0.02)
    assert store.sizes() == {}


def test_a_checkpoint_that_the_store_does_not_take_is_told_of(files, root, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tune_storage, "SECONDS", 0.1)
    (tmp_path / "share").write_text("no folder")
    stream = files.open_output_stream(f"{root}/tune/trial/checkpoint_000001/state.safetensors")
    stream.write(b"x")
    stream.close()
    assert "the checkpoint is lost" in caplog.text
