"""The versions of a lineage's champion as they are read: which of them stands is the ledger's to say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from rsi_ray.champion_version import (
    BASE,
    Version,
    bytes_of,
    named,
    path_in,
    paths_in,
    placed,
    read,
    standing,
)
from rsi_ray.errors import ChampionError
from rsi_ray.modification import Modification, modification
from safety import Champion, Promoted
from safety.names import plain_name

POINTER = "current.json"


class Record(Protocol):
    """What the ledger has of a lineage: a `Ledger`, a `Governor` or its client."""

    def champions(self, lineage: str) -> Sequence[Promoted]:
        """The promotions of a lineage, in order."""
        ...


class ChampionLine:
    """One lineage's versions, read from a folder of the lineage's name.

    Weights and manifest are one file, whose digest is what is approved. The ledger's promotions are the
    truth.

    Args:
        folder: of the lineage.
        record: the ledger.

    Raises:
        ChampionError: no lineage has the folder's name.
    """

    def __init__(self, folder: Path, record: Record) -> None:
        try:
            self.lineage = plain_name(folder.name)
        except ValueError as error:
            raise ChampionError(f"lineage {folder.name!r:.80}: {error}") from None
        self.folder = folder
        self._record = record

    # --- what there is

    def current(self) -> Version | None:
        """The champion, held against the ledger just now; None where the lineage has no base yet.

        Raises:
            ChampionError: its file isn't there, or isn't what was promoted.
        """
        promotions = self._promotions()
        champions = standing(promotions)
        if not champions:
            return self._base(promotions)
        ((path, artifact),) = self._champions([champions[-1][0]]).items()
        return self._read(path, promotions, artifact)

    def champion(self) -> Version:
        """The champion, where there must be one.

        Raises:
            ChampionError: there is none, or its file isn't what was promoted.
        """
        found = self.current()
        if found is None:
            raise ChampionError(f"lineage {self.lineage}: no version of it in {self.folder}")
        return found

    def versions(self) -> tuple[list[Version], list[str]]:
        """All versions in the order of their generations, and what is wrong with files that are none."""
        promotions = self._promotions()
        champions = self._champions(promotions)
        paths = [*paths_in(self.folder), *(path for path in champions if not path.exists())]
        found = [self._version_or_problem(path, promotions, champions.get(path, "")) for path in paths]
        versions = [one for one in found if isinstance(one, Version)]
        return versions, [one for one in found if isinstance(one, str)]

    def _champions(self, promotions: Sequence[Promoted]) -> dict[Path, str]:
        """Where the files of all that was promoted lie, and their digests."""
        champions = [one.champion for one in promotions if one.champion]
        return {path_in(self.folder, one.generation, one.artifact): one.artifact for one in champions}

    def _version_or_problem(self, path: Path, promotions: Sequence[Promoted], expected: str) -> Version | str:
        try:
            return self._read(path, promotions, expected)
        except ChampionError as error:
            return str(error)

    def find(self, name: str) -> Version:
        """A version: `current`, or by its generation, its name, or the beginning of its digest.

        Raises:
            ChampionError: there is none, there are several, or it isn't what it was.
        """
        if name == "current":
            return self.champion()
        promotions = self._promotions()
        paths = named(paths_in(self.folder), name)
        champions = self._champions(promotions)
        # candidates that were never promoted may have a champion's generation
        paths = [path for path in paths if path in champions] or paths
        if len(paths) != 1:
            found = ", ".join(path.stem for path in paths) or "none"
            raise ChampionError(
                f"version {name!r:.80} of lineage {self.lineage}: expected one, found {found}; "
                "`rsi-ray champion list` shows them"
            )
        version = self._read(paths[0], promotions)
        if version.state == "base":
            self._base(promotions)  # a file that says so is not the base yet
        return version

    def history(self) -> list[Modification]:
        """Every promotion of the lineage, in order, and what it changed."""
        promotions = self._promotions()
        return [self._modification(one, one.champion, promotions) for one in promotions if one.champion]

    def _modification(
        self, one: Promoted, champion: Champion, promotions: Sequence[Promoted]
    ) -> Modification:
        path = path_in(self.folder, champion.generation, champion.artifact)
        found = self._version_or_problem(path, promotions, champion.artifact)
        version = found if isinstance(found, Version) else None
        return modification(one, champion, version, self.parent_of(version) if version else None)

    def parent_of(self, version: Version) -> Version | None:
        """The version whose place it would take, or took; None for the base, and where that one is gone."""
        manifest = version.manifest
        path = path_in(self.folder, manifest.parent_generation, manifest.parent)
        found = self._version_or_problem(path, self._promotions(), manifest.parent)
        return found if manifest.parent and isinstance(found, Version) else None

    def ancestors(self, version: Version) -> Iterator[Version]:
        """The versions before one, its parent first."""
        parent = self.parent_of(version)
        while parent:
            yield parent
            parent = self.parent_of(parent)

    def last_known_safe(self) -> Version:
        """The newest version before the champion that people approved and that still is what it was.

        That is the base where none of them is. One that the lineage went back from is none.

        Raises:
            ChampionError: there is none.
        """
        promotions = self._promotions()
        approved = [one for one, _ in standing(promotions)[:-1] if one.decisions]
        for path, artifact in reversed(self._champions(approved).items()):
            found = self._version_or_problem(path, promotions, artifact)
            if isinstance(found, Version):  # where it is damaged, an older one is safer
                return found
        base = self._base(promotions) if standing(promotions) else None
        if base is None:
            raise ChampionError(f"lineage {self.lineage}: there is nothing before its champion to go back to")
        return base

    # --- the ledger, and the files

    def _promotions(self) -> Sequence[Promoted]:
        return self._record.champions(self.lineage)

    def _base(self, promotions: Sequence[Promoted]) -> Version | None:
        """What the lineage began with; None where there is no file of it.

        Raises:
            ChampionError: there are several, or no champion says that it followed this one.
        """
        paths = named(paths_in(self.folder), str(BASE))
        if not paths:
            return None
        base = self._read(paths[0], promotions)
        known = self._known_bases(promotions)
        if len(paths) > 1 or (known and base.artifact not in known):
            files = " and ".join(path.name for path in paths)
            raise ChampionError(
                f"lineage {self.lineage}: {files} in {self.folder}, expected the one base it had"
            )
        return base

    def _known_bases(self, promotions: Sequence[Promoted]) -> set[str]:
        """What the lineage began with, as its champions say, or the pointer where there are none."""
        champions = self._champions(promotions).items()
        if not champions:
            return _pointed(self.folder / POINTER)
        found = [self._version_or_problem(path, promotions, artifact) for path, artifact in champions]
        return {version.manifest.base for version in found if isinstance(version, Version)} or {""}

    def _read(self, path: Path, promotions: Sequence[Promoted], expected: str = "") -> Version:
        return placed(read(path, self.lineage, expected), promotions)


def _pointed(pointer: Path) -> set[str]:
    """The base that a pointer tells of."""
    try:
        told = json.loads(bytes_of(pointer))
        return {str(told["artifact"])} if told["generation"] == BASE else set()
    except (ChampionError, ValueError, KeyError, TypeError):
        return set()
