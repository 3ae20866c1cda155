"""What a submitted job carries along."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rsi_ray.errors import SweepError
from rsi_ray.parcel import Parcel, parcel_of
from safety import read_yaml


def parcel(
    folder: Path, *, here: Path | None = None, further: tuple[Path, ...] = (), **data: object
) -> Parcel:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(data))
    return parcel_of(read_yaml(file), here=here or folder, further=further)


def carried(given: Parcel, folder: Path) -> set[str]:
    given.put(folder)
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_a_file_names_beside_it_is_carried_and_nothing_else(tmp_path: Path):
    for name in ("data/a.csv", "data/b.csv", "limits.yaml", "other.txt", "rsi_results/run.json"):
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(name)
    given = parcel(
        tmp_path / "here",
        limits="limits.yaml",
        task={"kind": "text_files", "paths": ["data/a.csv"]},
        storage="rsi_results",
        name="other.txt",
    )
    assert carried(given, tmp_path / "there") == {"sweep.yaml", "limits.yaml", "data/a.csv"}
    assert given.elsewhere == ()


def test_a_folder_is_carried_without_what_python_has_left_in_it(tmp_path: Path):
    (tmp_path / "here" / "images" / "__pycache__").mkdir(parents=True)
    (tmp_path / "here" / "images" / "one.png").touch()
    (tmp_path / "here" / "images" / "__pycache__" / "x.pyc").touch()
    given = parcel(tmp_path / "here", task={"path": "images"})
    assert carried(given, tmp_path / "there") == {"sweep.yaml", "images/one.png"}


def test_own_classes_are_carried_from_beside_the_file_or_else_from_here(tmp_path: Path):
    beside, here = tmp_path / "beside", tmp_path / "here"
    for path in (beside / "mine.py", here / "mine.py", here / "models" / "__init__.py"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(path.parent.name))
    given = parcel(
        beside,
        here=here,
        sampler="mine:Sampler",
        space={"kind": "models.vision:Space"},
        task={"kind": "elsewhere.installed:Task"},
    )
    assert carried(given, tmp_path / "there") == {"sweep.yaml", "mine.py", "models/__init__.py"}
    assert (tmp_path / "there" / "mine.py").read_text() == "beside"


def test_further_files_are_carried_to_where_they_lie(tmp_path: Path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "policy.yaml").touch()
    given = parcel(tmp_path, further=(tmp_path / "more" / "policy.yaml",))
    assert set(given.files) == {"sweep.yaml", "more/policy.yaml"}


def test_a_further_file_that_is_missing_or_far_away_is_refused(tmp_path: Path):
    (tmp_path / "here").mkdir()
    with pytest.raises(SweepError, match="no such file or folder to carry along"):
        parcel(tmp_path / "here", further=(tmp_path / "here" / "nowhere",))
    (tmp_path / "far").touch()
    with pytest.raises(SweepError, match="far: expected a path below "):
        parcel(tmp_path / "here", further=(tmp_path / "far",))


def test_what_leads_out_of_the_files_folder_is_refused(tmp_path: Path):
    (tmp_path / "here").mkdir()
    (tmp_path / "data.csv").touch()
    with pytest.raises(SweepError, match=r"sweep.yaml: \.\./data.csv lies outside"):
        parcel(tmp_path / "here", task={"path": "../data.csv"})
    (tmp_path / "here" / "link").symlink_to(tmp_path / "data.csv")
    with pytest.raises(SweepError, match="link lies outside"):
        parcel(tmp_path / "here", task={"path": "link"})
    (tmp_path / "here" / "data").mkdir()
    (tmp_path / "here" / "data" / "key").symlink_to(tmp_path / "data.csv")
    with pytest.raises(SweepError, match="data lies outside the file's folder by the link key"):
        parcel(tmp_path / "here", task={"path": "data"})
    (tmp_path / "here" / "limits.yaml").touch()
    with pytest.raises(SweepError, match="lies outside"):
        parcel(tmp_path / "here", limits="../here/limits.yaml")


def test_a_link_that_leads_to_itself_is_refused_in_a_line(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "round").symlink_to("round")
    with pytest.raises(SweepError, match=r"sweep.yaml: data "):
        parcel(tmp_path, task={"path": "data"})


def test_data_that_an_ignore_file_names_are_carried_without_it(tmp_path: Path):
    (tmp_path / "here" / "data").mkdir(parents=True)
    for name in (".gitignore", ".rayignore", "a.csv"):
        (tmp_path / "here" / "data" / name).write_text("*")
    given = parcel(tmp_path / "here", task={"path": "data"})
    assert carried(given, tmp_path / "there") == {"sweep.yaml", "data/a.csv"}


def test_a_module_is_what_python_would_import(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.py").touch()
    assert set(parcel(tmp_path, sampler="mine:Sampler").files) == {"sweep.yaml", "mine.py"}
    (tmp_path / "mine" / "__init__.py").touch()
    assert set(parcel(tmp_path, sampler="mine:Sampler").files) == {"sweep.yaml", "mine"}


def test_text_that_is_too_long_for_a_path_is_none(tmp_path: Path):
    assert set(parcel(tmp_path, task={"text": "x" * 5000}).files) == {"sweep.yaml"}


def test_an_absolute_path_is_the_clusters_and_told_where_it_is_not_here(tmp_path: Path):
    (tmp_path / "here.csv").touch()
    given = parcel(tmp_path, task={"paths": [str(tmp_path / "here.csv"), "/no/such/data"]})
    assert set(given.files) == {"sweep.yaml"}
    assert (given.elsewhere, given.left) == (("/no/such/data",), (str(tmp_path / "here.csv"),))
