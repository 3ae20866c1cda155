"""What a submitted job carries: its file, what that names beside it, and this project's packages."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsi_ray.errors import SweepError
from safety import Document

# sections whose strings may name files
NAMING = ("task", "space", "limits")
# what names a class of one's own: module:Class
CLASS = re.compile(r"([A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_]\w*")
# Ray leaves out what the ignore files say, which name data and results
NOT_CARRIED = shutil.ignore_patterns("__pycache__", "*.pyc", ".git", ".gitignore", ".rayignore")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """What a job carries.

    Attributes:
        files: where each lies here, by its place in the job's folder.
        elsewhere: absolute paths in the sweep's file that are not on this machine: the cluster's, perhaps.
        left: absolute paths in it that are on this machine, and are not carried.
    """

    files: Mapping[str, Path]
    elsewhere: tuple[str, ...]
    left: tuple[str, ...] = ()

    def put(self, folder: Path) -> None:
        """Copy it into a folder."""
        for place, source in sorted(self.files.items()):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, folder / place, ignore=NOT_CARRIED, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, folder / place)


def parcel_of(document: Document, *, here: Path, further: Sequence[Path] = ()) -> Parcel:
    """What a sweep's file names, for a job that finds it all beside it as this machine does.

    Args:
        document: the file; its source is the file's path.
        here: where classes of one's own are looked for as well, after the file's folder.
        further: files and folders below either, that nothing names.

    Raises:
        SweepError: a path leads out of the file's folder, or a further file isn't there.
    """
    file = Path(document.source)
    beside, data = file.parent, document.data if isinstance(document.data, Mapping) else {}
    named = [name for part in NAMING for name in _strings(data.get(part))]
    files = {file.name: file}
    files |= {name: beside / name for name in named if _is_beside(name, beside, file.name)}
    for module in _modules(_strings(data)):
        files |= _module(module, (beside, here))
    files |= {_place(path, (beside, here)): path for path in further}
    absolute = {name for name in named if name.startswith("/")}
    left = set(filter(os.path.exists, absolute))
    return Parcel(files=files, elsewhere=tuple(sorted(absolute - left)), left=tuple(sorted(left)))


def _strings(value: Any) -> Iterator[str]:
    """All strings in a document's part."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from _strings(one)


def _is_beside(name: str, beside: Path, file: str) -> bool:
    """Whether a string names what is to be carried.

    Raises:
        SweepError: it leads out of the file's folder, itself or by a link in it.
    """
    try:
        if not name or name.startswith("/") or "\0" in name or not (beside / name).exists():
            return False
        path = (beside / name).resolve()
        out = [one for one in (path, *path.rglob("*")) if not one.resolve().is_relative_to(beside.resolve())]
    except RuntimeError:  # until Python 3.12
        raise SweepError(f"{file}: {name} holds a link that leads to itself") from None
    except OSError:  # too long for a name, or not to be read
        return False
    if out or ".." in Path(name).parts:
        raise SweepError(
            f"{file}: {name} lies outside the file's folder{_link(out, path)}; expected a path below it, "
            "which is carried along, or an absolute one of the cluster"
        )
    return path != beside.resolve()


def _link(out: Sequence[Path], path: Path) -> str:
    return f" by the link {out[0].relative_to(path)}" if out and out[0] != path else ""


def _modules(strings: Iterable[str]) -> set[str]:
    """Top-level modules of all classes that are named."""
    return {match[1] for one in strings if (match := CLASS.fullmatch(one))}


def _module(name: str, folders: Iterable[Path]) -> dict[str, Path]:
    """A module that lies in one of the folders; any other is the cluster's own."""
    for folder in folders:
        if (folder / name / "__init__.py").is_file():
            return {name: folder / name}
        if (folder / f"{name}.py").is_file():
            return {f"{name}.py": folder / f"{name}.py"}
    return {}


def _place(path: Path, folders: Sequence[Path]) -> str:
    if not path.exists():
        raise SweepError(f"{path}: no such file or folder to carry along")
    for folder in folders:
        if path.resolve().is_relative_to(folder.resolve()):
            return str(path.resolve().relative_to(folder.resolve()))
    raise SweepError(f"{path}: expected a path below {' or '.join(dict.fromkeys(map(str, folders)))}")
