"""An artifact store: files in S3, GCS, Azure or on a share, by a URI of `pyarrow.fs`."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from rsi_ray.errors import ArtifactStoreError
from rsi_ray.patience import Result, while_away
from rsi_ray.printable import one_line

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")
AZURE, AZURE_KEY = ("abfs", "abfss"), "AZURE_STORAGE_KEY"
CREDENTIALS = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_KEY, "
    "or the machine's own role"
)
SECRET_OPTIONS = ("access_key", "secret_key", "session_token", "client_secret", "sig", "sas_token")
# an object appears whole or not at all; a file of these is renamed when it is whole
RENAMED = ("local", "hdfs")
PARTIAL = ".partial"
# how long a worker goes on trying
PATIENCE_SECONDS = 120.0


def store_uri(uri: str) -> str:
    """A URI by which a store can be opened, as far as it can be told without looking there.

    Raises:
        ValueError: what is wrong with it, without what may be secret in it.
    """
    try:
        parts = urlsplit(uri)
        options = dict(parse_qsl(parts.query))
        user, password = parts.username, parts.password
    except ValueError:
        raise ValueError("no URI; expected one as s3://bucket/prefix") from None
    # of what may hold a key neither user nor options are shown
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if password or (user and parts.scheme == "s3") or any(map(options.get, SECRET_OPTIONS)):
        raise ValueError(
            f"{shown}: there is a key in it; expected it in each node's environment: {CREDENTIALS}"
        )
    if parts.scheme not in SCHEMES:
        shown = shown if parts.scheme else uri
        raise ValueError(f"{shown}: expected a URI of {'://, '.join(SCHEMES)}://")
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/") or parts.path == "/":
            raise ValueError(f"{shown}: expected an absolute path, as file:///mnt/share/runs")
    elif not parts.netloc:
        raise ValueError(f"{shown}: it names no bucket; expected one as {parts.scheme}://bucket/prefix")
    return uri


@dataclass(frozen=True, kw_only=True)
class ArtifactStore:
    """A folder of a store; each process opens it for itself, with the credentials of its own environment.

    Attributes:
        uri: see `store_uri`.
        below: path from there.
    """

    uri: str
    below: str = ""

    def __str__(self) -> str:
        """As messages show it."""
        return f"{self.uri}{f' {self.below}' if self.below else ''}"

    def at(self, name: str) -> ArtifactStore:
        """A folder in it."""
        return replace(self, below=f"{self.below}/{name}".lstrip("/"))

    @property
    def folder(self) -> Path | None:
        """Where it lies, if it is one of a file system that is mounted here."""
        parts = urlsplit(self.uri)
        return Path(parts.path) / self.below if parts.scheme == "file" else None

    def opened(self) -> tuple[Any, str]:
        """The file system, and the path of this folder on it.

        Raises:
            ArtifactStoreError: it can't be opened.
        """
        try:
            files, root = _opened(self.uri)
        except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
            raise ArtifactStoreError(f"artifacts {self.uri}: it can't be opened: {one_line(error)}") from None
        return files, "/".join(part for part in (root.rstrip("/"), self.below) if part)

    def put(self, source: Path, name: str) -> None:
        """Bring a file there, or replace one there, whole or not at all.

        Raises:
            ArtifactStoreError: it could not be written.
            FileNotFoundError: there is no such file here.
        """
        files, root = self.opened()
        target = f"{root}/{name}"
        with source.open("rb") as file, self._told(f"{name} can't be written"):
            written = target if files.type_name not in RENAMED else _partial_of(files, target)
            # not by `copy_files`, which says nothing where the end of an upload fails
            with files.open_output_stream(written) as stream:
                shutil.copyfileobj(file, stream, 1 << 22)
            found = files.get_file_info(written).size
            if found != file.tell():
                raise OSError(f"{found} bytes of {file.tell()} are there")
            if written != target:
                files.move(written, target)

    def get(self, name: str, target: Path) -> None:
        """Bring a file here, or replace one here, whole or not at all.

        Raises:
            ArtifactStoreError: it isn't there, or can't be read.
        """
        files, root = self.opened()
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}{PARTIAL}")
        with self._told(f"{name} can't be read"):
            with files.open_input_stream(f"{root}/{name}") as stream, partial.open("wb") as file:
                shutil.copyfileobj(stream, file, 1 << 22)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file in it, at any depth; nothing where there is no such folder.

        Raises:
            ArtifactStoreError: it can't be read.
        """
        return {name: info.size for name, info in self._listed(recursive=True) if info.is_file}

    def names(self) -> list[str]:
        """What lies directly in it.

        Raises:
            ArtifactStoreError: it can't be read.
        """
        # of folders that nobody has made, GCS tells by what is in them
        is_flat = self.opened()[0].type_name == "gcs"
        return sorted({name.partition("/")[0] for name, _ in self._listed(recursive=is_flat)})

    def _listed(self, *, recursive: bool) -> Iterator[tuple[str, Any]]:
        files, root = self.opened()
        with self._told("it can't be read"):
            found = files.get_file_info(fs.FileSelector(root, recursive=recursive, allow_not_found=True))
        for info in found:
            name = info.path[len(root) :].strip("/")
            if is_plain(name) and not name.endswith(PARTIAL):
                yield name, info

    def remove(self, name: str) -> None:
        """Delete a file that is there.

        Raises:
            ArtifactStoreError: it can't be deleted.
        """
        files, root = self.opened()
        with self._told(f"{name} can't be deleted"):
            files.delete_file(f"{root}/{name}")

    def remove_all(self) -> None:
        """Delete everything in it.

        Raises:
            ArtifactStoreError: it can't be deleted.
        """
        files, root = self.opened()
        with self._told("it can't be deleted"):
            files.delete_dir_contents(root, missing_dir_ok=True)

    def patiently(self, act: Callable[[], Result], seconds: float = PATIENCE_SECONDS) -> Result:
        """Do what it may refuse for a while, again and again.

        Raises:
            ArtifactStoreError: it has refused for so many seconds.
        """
        return while_away(act, f"artifacts {self}", faults=(ArtifactStoreError,), seconds=seconds)

    def check(self) -> None:
        """Put a small file there, read it again, and delete it.

        Raises:
            ArtifactStoreError: this process can't, in one line.
        """
        name = f".rsi-ray-{secrets.token_hex(8)}"
        with tempfile.TemporaryDirectory() as folder:
            sent, back = Path(folder) / "sent", Path(folder) / "back"
            sent.write_text(name)
            self.put(sent, name)
            self.get(name, back)
            self.remove(name)
            if back.read_text() != name:
                raise ArtifactStoreError(f"artifacts {self}: what was read isn't what was written")

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise ArtifactStoreError(f"artifacts {self}: {what}: {one_line(error)}") from None


Place = Path | ArtifactStore


def write_whole(
    place: Place,
    name: str,
    write: Callable[[Path], None],
    *,
    tried: Callable[[Callable[[], None]], None] = lambda act: act(),
) -> None:
    """Write a file into a folder, or into one of a store, whole or not at all.

    Args:
        place: the folder; it is made where it is missing.
        name: of the file.
        write: its content, into a file here.
        tried: calls what touches the storage, which may be done again.

    Raises:
        ArtifactStoreError: the store doesn't take it.
    """
    if isinstance(place, Path):
        tried(partial(_write_into, place / name, write))
        return
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / name
        write(written)
        tried(partial(place.put, written, name))


def _write_into(target: Path, write: Callable[[Path], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(PARTIAL)
    write(unfinished)
    unfinished.replace(target)


def is_plain(name: str) -> bool:
    """Whether a name from a store is one of a path below a folder, and of nothing else."""
    parts = PurePosixPath(name).parts
    return bool(parts) and name.isprintable() and not name.startswith("/") and ".." not in parts


def _partial_of(files: Any, target: str) -> str:
    folder, _, name = target.rpartition("/")
    files.create_dir(folder, recursive=True)
    return f"{folder}/.{name}{PARTIAL}"


@lru_cache(maxsize=8)
def _opened(uri: str) -> tuple[Any, str]:
    scheme = urlsplit(uri).scheme
    if scheme == "s3":
        try:  # a small file in one request
            return _from_uri(f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true")
        except pa.ArrowInvalid:  # an older pyarrow
            return _from_uri(uri)
    files, root = _from_uri(uri)
    key = os.environ.get(AZURE_KEY)
    return (with_key(files, key) if key and scheme in AZURE else files), root


def _from_uri(uri: str) -> tuple[Any, str]:
    found: tuple[Any, str] = fs.FileSystem.from_uri(uri)
    return found


def with_key(files: Any, key: str) -> Any:
    """An Azure file system that signs with an account's key, which pyarrow takes from no URI."""
    make, (options,) = files.__reduce__()
    return make({**options, "account_key": key})
