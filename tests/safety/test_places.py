"""Where checkpoints lie, and what becomes of a folder that is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from safety.errors import CheckpointError, LedgerError
from safety.places import new_place, places_of, record, record_of, recorded_in

URL = "sqlite:////data/ledger.db"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:////data/runs/ledger.db", "ledger.db"),
        ("postgresql://ann:secret@host/safety", "safety"),
        ("sqlite://", "ledger"),
    ],
)
def test_checkpoints_lie_beside_the_ledger_and_in_folders_that_are_named(url, name):
    assert [place.path for place in places_of(url, Path("runs"), [Path("mount")])] == [
        Path(f"runs/checkpoints/{name}.checkpoints.jsonl"),
        Path(f"mount/{name}.checkpoints.jsonl"),
    ]


def test_a_ledger_without_a_url_has_no_places():
    with pytest.raises(LedgerError, match="not a database URL"):
        places_of("nonsense", Path("runs"))


def test_a_folder_that_was_recorded_is_a_place_for_good_and_once(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in [*folders, *folders]:
        record(URL, tmp_path, folder)
    assert recorded_in(URL, tmp_path) == folders
    paths = [place.path.parent for place in places_of(URL, tmp_path, [tmp_path / "two", tmp_path / "three"])]
    assert paths == [tmp_path / "checkpoints", *folders, tmp_path / "three"]


def test_what_is_recorded_is_one_ledgers_own(tmp_path):
    record(URL, tmp_path, tmp_path / "one")
    assert recorded_in("sqlite:////data/other.db", tmp_path) == []


def test_a_recorded_folder_that_is_away_is_no_empty_one(tmp_path):
    record(URL, tmp_path, tmp_path / "away")
    _, place = places_of(URL, tmp_path)
    with pytest.raises(CheckpointError, match="gone, or its disk or host is away"):
        place.read()
    with pytest.raises(CheckpointError, match="can't be written: No such file or directory"):
        place.make()
    assert not (tmp_path / "away").exists()


def test_a_record_that_cannot_be_read_or_written_is_told(tmp_path):
    path = record_of(URL, tmp_path)
    path.mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"ledger.db.places: can't be read: .*Is a directory"):
        places_of(URL, tmp_path)
    path.rmdir()
    path.symlink_to(tmp_path / "nowhere" / "file")
    with pytest.raises(CheckpointError, match=r"ledger.db.places: can't be written: No such file"):
        record(URL, tmp_path, tmp_path / "one")


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("relative", "no such folder on the governor's host"),
        ("{}/missing", "no such folder on the governor's host"),
        ("{}/file", "no such folder on the governor's host"),
        ("{}/two\nlines", "its name can't be written down"),
    ],
)
def test_a_folder_that_is_not_there_or_cannot_be_told_is_no_place(tmp_path, folder, problem):
    (tmp_path / "file").touch()
    (tmp_path / "two\nlines").mkdir()
    with pytest.raises(CheckpointError, match=f"{problem}; expected one that is there, on another disk"):
        new_place(URL, Path(folder.format(tmp_path)))


def test_a_folder_that_cannot_be_written_is_no_place(tmp_path):
    (tmp_path / "ledger.db.checkpoints.jsonl").mkdir()
    with pytest.raises(CheckpointError, match="can't be written: Is a directory"):
        new_place(URL, tmp_path)


def test_the_file_in_a_new_place_is_made_at_once(tmp_path):
    place = new_place(URL, tmp_path)
    assert place.read().checkpoints == ()
    os.unlink(place.path)
    with pytest.raises(CheckpointError, match="gone"):
        place.read()
