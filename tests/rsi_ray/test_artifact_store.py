"""Files in a store: a share here, by the same code that speaks to S3."""

import re
from functools import partial
from pathlib import Path

import pytest
from pyarrow import fs

from rsi_ray.artifact_store import ArtifactStore, is_plain, store_uri, with_key
from rsi_ray.errors import ArtifactStoreError
from rsi_ray.patience import while_away


class Time:
    now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def time(monkeypatch):
    """That passes only while somebody waits for a store."""
    made = Time()
    waits = partial(while_away, clock=made, sleep=made.sleep)
    monkeypatch.setattr("rsi_ray.artifact_store.while_away", waits)
    return made


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(uri=f"file://{tmp_path}/share").at("run")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("s3://KEY:HIDDEN@bucket/x", "s3://bucket/x: there is a key in it"),
        ("s3://KEY@bucket/x", "there is a key in it"),
        ("abfs://account:HIDDEN@container/x", "abfs://container/x: there is a key in it"),
        ("abfs://container/x?client_secret=HIDDEN", "abfs://container/x: there is a key in it"),
        ("ftp://host/x", "ftp://host/x: expected a URI of s3://"),
        ("/mnt/share", "/mnt/share: expected a URI of s3://"),
        ("s3:///x", "s3:///x: it names no bucket; expected one as s3://bucket/prefix"),
        ("file://share/x", "expected an absolute path, as file:///mnt/share/runs"),
        ("file:///", "expected an absolute path"),
        ("s3://[x", "no URI"),
    ],
)
def test_a_uri_that_no_store_can_be_opened_by_is_refused_in_a_line_without_its_keys(uri, told):
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        store_uri(uri)
    assert "HIDDEN" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket/a/b?region=x&scheme=http", "gs://anonymous@bucket/x", "abfss://c@a.dfs.x/y", "file:///m"],
)
def test_a_uri_of_a_bucket_or_a_share_is_taken(uri):
    assert store_uri(uri) == uri


def test_an_azure_file_system_signs_with_an_accounts_key():
    options = {"blob_storage_authority": "127.0.0.1:1", "blob_storage_scheme": "http"}
    made = with_key(fs.AzureFileSystem("account", **options), "a2V5")
    assert made == fs.AzureFileSystem("account", account_key="a2V5", **options)


def test_a_file_is_whole_there_and_comes_back_as_it_was(store, tmp_path):
    (tmp_path / "sent").write_bytes(b"x" * 5_000_000)
    store.put(tmp_path / "sent", "weights/a")
    store.get("weights/a", tmp_path / "new" / "back")
    assert (tmp_path / "new" / "back").read_bytes() == b"x" * 5_000_000
    assert store.sizes() == {"weights/a": 5_000_000}
    assert (store.names(), store.at("weights").names()) == (["weights"], ["a"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["back"]


def test_what_is_half_written_is_not_listed(store, tmp_path):
    (tmp_path / "share" / "run").mkdir(parents=True)
    (tmp_path / "share" / "run" / ".a.partial").write_text("half")
    assert (store.sizes(), store.names()) == ({}, [])


def test_what_is_not_there_is_told_in_one_line(store, tmp_path):
    with pytest.raises(ArtifactStoreError, match=r"^artifacts file://.* run: a can't be read: .*$"):
        store.get("a", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    with pytest.raises(ArtifactStoreError, match="a can't be deleted"):
        store.remove("a")
    assert (store.sizes(), store.names()) == ({}, [])


def test_a_store_that_can_be_used_is_left_as_it_was_by_a_look(store):
    store.check()
    assert store.sizes() == {}


def test_a_store_that_can_not_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "share").write_text("a file, no folder")
    with pytest.raises(ArtifactStoreError, match="can't be written"):
        ArtifactStore(uri=f"file://{tmp_path}/share").check()


def test_everything_of_a_folder_is_deleted_and_nothing_beside_it(store, tmp_path):
    (tmp_path / "sent").write_bytes(b"x")
    for name in ("tune/a/b", "tune/c", "run.json"):
        store.put(tmp_path / "sent", name)
    store.at("tune").remove_all()
    store.at("never").remove_all()
    assert list(store.sizes()) == ["run.json"]


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "", "a\nb"])
def test_a_name_that_leads_elsewhere_is_none_of_a_store(name):
    assert not is_plain(name)


def test_what_a_store_refuses_is_tried_until_it_works(store, time):
    tries = []

    def act():
        tries.append(time.now)
        if time.now < 20:
            raise ArtifactStoreError("down")
        return "up"

    assert store.patiently(act, 60) == "up"
    assert 20 <= tries[-1] <= 30
    assert len(tries) < 10
    with pytest.raises(FileNotFoundError):  # of a file that isn't here
        store.patiently(lambda: store.put(Path("nowhere"), "a"), 60)


def test_what_a_store_goes_on_refusing_is_told_after_a_while(store, time):
    def act():
        raise ArtifactStoreError("down")

    with pytest.raises(ArtifactStoreError, match="down"):
        store.patiently(act, 60)
    assert time.now == 60
