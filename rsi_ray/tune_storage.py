"""Ray Tune's storage in an artifact store: checkpoints of trials, and nothing that its driver waits for."""

from __future__ import annotations

import io
import logging
import re
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from rsi_ray.artifact_store import RENAMED, ArtifactStore
from rsi_ray.errors import ArtifactStoreError
from rsi_ray.printable import one_line

CHECKPOINT = re.compile(r"checkpoint_[0-9]+")
MARKER = ".validate_storage_marker"
# longer than a worker of Tune may wait for a store, it is not tried
SECONDS = 60.0

log = logging.getLogger(__name__)

FoundT = TypeVar("FoundT")


class CheckpointStorage(fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """What `RunConfig.storage_filesystem` takes: paths are those of the store's own file system.

    Tune's driver writes down the state of its experiment every few seconds, and waits for it at the end: that
    stays in a folder of its own, and nothing about it is asked of the store. Old checkpoints are deleted in a
    thread. What workers do is tried again for a while.

    Args:
        store: of a run.
        folder: of the same run, for the driver alone.
    """

    def __init__(self, store: ArtifactStore, folder: Path) -> None:
        self._store, self._folder = store, folder

    def __reduce__(self) -> Any:
        """Each process opens the store for itself."""
        return CheckpointStorage, (self._store, self._folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CheckpointStorage) and self._store == other._store

    def __hash__(self) -> int:
        return hash(self._store)

    def get_type_name(self) -> str:
        """Of the store's file system."""
        return f"checkpoints({self._files.type_name})"

    def normalize_path(self, path: str) -> str:
        """As it is."""
        return path

    def get_file_info(self, paths: list[str]) -> list[Any]:
        """Of checkpoints' files and of the driver's; a checkpoint is a folder, and the marker is there."""
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> Any:
        name = PurePosixPath(path).name
        if _is_of_checkpoint(path) and not CHECKPOINT.fullmatch(name):
            return self._tried(lambda: self._files.get_file_info(path))
        if name == MARKER:
            return fs.FileInfo(path, fs.FileType.File, size=0)
        if CHECKPOINT.fullmatch(name):
            return fs.FileInfo(path, fs.FileType.Directory)
        return self._of_the_store(fs.LocalFileSystem().get_file_info(self._here(path)))

    def get_file_info_selector(self, selector: Any) -> list[Any]:
        """Of what lies in a folder."""
        if not _is_of_checkpoint(selector.base_dir):
            here = fs.FileSelector(
                self._here(selector.base_dir),
                recursive=selector.recursive,
                allow_not_found=selector.allow_not_found,
            )
            return [self._of_the_store(info) for info in fs.LocalFileSystem().get_file_info(here)]
        found: list[Any] = self._tried(lambda: self._files.get_file_info(selector))
        return found

    def create_dir(self, path: str, recursive: bool) -> None:
        """Make a checkpoint's folder, where the store has folders."""
        if not _is_of_checkpoint(path):
            Path(self._here(path)).mkdir(parents=True, exist_ok=True)
        elif self._files.type_name in RENAMED:
            self._files.create_dir(path, recursive=recursive)

    def open_input_stream(self, path: str) -> Any:
        """Read a file."""
        if not _is_of_checkpoint(path):
            return pa.OSFile(self._here(path))
        return self._tried(lambda: self._files.open_input_stream(path))

    def open_input_file(self, path: str) -> Any:
        """Read a file, from anywhere in it."""
        if not _is_of_checkpoint(path):
            return pa.OSFile(self._here(path))
        return self._tried(lambda: self._files.open_input_file(path))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        """Write a file."""
        del metadata
        if not _is_of_checkpoint(path):
            return pa.OSFile(self._here(path), mode="w")
        name = path.removeprefix(f"{self._root}/")
        return pa.PythonFile(_Upload(self._store, name), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        """Refuse it: nothing that is kept is appended to."""
        raise NotImplementedError(f"append to {path}")

    def delete_dir(self, path: str) -> None:
        """Delete a checkpoint, by and by."""
        if _is_of_checkpoint(path):
            _later(partial(self._files.delete_dir, path))

    def delete_file(self, path: str) -> None:
        """Delete a file of a checkpoint, by and by."""
        if _is_of_checkpoint(path):
            _later(partial(self._files.delete_file, path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete what is in a checkpoint, by and by."""
        del missing_dir_ok
        self.delete_dir(path)

    def delete_root_dir_contents(self) -> None:
        """Refuse it: a store is others' as well."""
        raise NotImplementedError("delete a whole store")

    def move(self, src: str, dest: str) -> None:
        """Move a file of a checkpoint."""
        self._tried(lambda: self._files.move(src, dest))

    def copy_file(self, src: str, dest: str) -> None:
        """Copy a file of a checkpoint."""
        self._tried(lambda: self._files.copy_file(src, dest))

    def _here(self, path: str) -> str:
        return f"{self._folder}{path.removeprefix(self._root)}"

    def _of_the_store(self, info: Any) -> Any:
        path = f"{self._root}{info.path.removeprefix(str(self._folder))}"
        return fs.FileInfo(path, info.type, mtime_ns=info.mtime_ns, size=info.size)

    @property
    def _root(self) -> str:
        return self._store.opened()[1]

    @property
    def _files(self) -> Any:
        return self._store.opened()[0]

    def _tried(self, act: Callable[[], FoundT]) -> FoundT:
        def once() -> FoundT:
            try:
                return act()
            except FileNotFoundError:
                raise
            except (pa.ArrowException, OSError) as error:
                raise ArtifactStoreError(f"artifacts {self._store}: {one_line(error)}") from None

        return self._store.patiently(once, SECONDS)


class _Upload(io.RawIOBase):
    """A file here that is put into a store when it is closed.

    pyarrow's copying ignores what goes wrong with the end of a file: it is tried for a while here, and a
    checkpoint that is lost all the same is missed by whoever restores it.
    """

    def __init__(self, store: ArtifactStore, name: str) -> None:
        self._store, self._name = store, name
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "file"
        self._file = self._path.open("wb")

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Bytes that were written."""
        return self._file.tell()

    def write(self, content: Any) -> int:
        """Write on."""
        return self._file.write(content)

    def close(self) -> None:
        """Put it into the store."""
        if self.closed:
            return
        try:
            self._file.close()
            self._store.patiently(partial(self._store.put, self._path, self._name), SECONDS)
        except ArtifactStoreError as error:
            log.error("%s; the checkpoint is lost", error)
        finally:
            self._folder.cleanup()
            super().close()


def _is_of_checkpoint(path: str) -> bool:
    return any(map(CHECKPOINT.fullmatch, PurePosixPath(path).parts))


def _later(act: Callable[[], None]) -> None:
    def quietly() -> None:
        with suppress(
            pa.ArrowException, OSError
        ):  # it is deleted with the run's checkpoints, when that is resumed
            act()

    threading.Thread(target=quietly, daemon=True).start()
