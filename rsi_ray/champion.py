"""The versions of a lineage's champion on disk; which of them stands is the ledger's to say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import rfc8785

from rsi_ray.champion_version import (
    BASE,
    Candidate,
    Version,
    bytes_of,
    digest_of,
    file_of,
    named,
    path_in,
    paths_in,
    placed,
    put,
    read,
    standing,
)
from rsi_ray.durable import locked, write_durably
from rsi_ray.errors import ChampionError
from rsi_ray.modification import Modification, modification
from safety import Allow, Champion, Deny, Promoted, Verdict
from safety.names import plain_name

# in the storage; each lineage has a folder of its name in it
FOLDER = "champions"
POINTER, LOCK = "current.json", ".lock"


class Record(Protocol):
    """What the ledger has of a lineage: a `Ledger`, a `Governor` or its client."""

    def champions(self, lineage: str) -> Sequence[Promoted]:
        """The promotions of a lineage, in order."""
        ...


class ChampionStore:
    """One lineage's versions, in a folder of the lineage's name.

    Weights and manifest are one file, whose digest is what is approved. The ledger's promotions are the
    truth; `current.json` repeats it for whoever doesn't read the ledger, and `settle` brings it forward.

    Args:
        folder: of the lineage; it is made with the base.
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

    # --- what is done

    def adopt_base(self, candidate: Candidate) -> Version:
        """Write down what the lineage begins with; the same again is the same version.

        Raises:
            ChampionError: its weights are no safetensors file, or the lineage has begun with another one.
        """
        content = file_of(candidate, self.lineage, None, BASE)
        artifact = digest_of(content)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._require_begins_with(artifact)
            put(path_in(self.folder, BASE, artifact), content, candidate.evidence)
            self._settle()
        return self.find(artifact)

    def _require_begins_with(self, artifact: str) -> None:
        promotions = self._promotions()
        before = self._base(promotions)
        if (before and before.artifact != artifact) or (self._champions(promotions) and not before):
            begun = f"with {before.name}" if before else "without this base"
            raise ChampionError(
                f"lineage {self.lineage}: it has begun {begun}; expected a new lineage's name"
            )

    def stage(self, candidate: Candidate) -> Version:
        """Write down what may follow the champion, promoting nothing; the same again is the same version.

        Raises:
            ChampionError: its weights are no safetensors file, or there is no champion that it could follow.
        """
        champion = self.champion()
        generation = len(self._promotions()) + 1
        content = file_of(candidate, self.lineage, champion, generation)
        path = path_in(self.folder, generation, digest_of(content))
        with self._locked():
            put(path, content, candidate.evidence)
        return self._read(path, self._promotions())

    def is_champion(self, candidate: Candidate) -> bool:
        """Whether a candidate is the champion already, as after a crash right after its promotion."""
        champion = self.champion()
        parent, generation = self.parent_of(champion), champion.manifest.generation
        content = file_of(candidate, self.lineage, parent, generation)
        return digest_of(content) == champion.artifact

    def promote(self, artifact: str, ask: Callable[[Champion], Verdict]) -> Verdict:
        """Have the ledger promote a version, hashed just now, and only then make it the champion.

        Args:
            artifact: digest that was approved.
            ask: asks the ledger to promote; twice must be once.

        Returns:
            The ledger's verdict; or Deny, where the file isn't what was approved, and the ledger isn't asked.

        Raises:
            ChampionError: there is no such version, or it is a link.
        """
        with self._locked():
            path = self._path_by(artifact)
            digest = digest_of(bytes_of(path))
            if digest != artifact:
                return Deny(
                    "artifact.digest", f"champion {path}: its digest is {digest}, approved was {artifact}"
                )
            verdict = ask(self._read(path, ()).champion)
            if isinstance(verdict, Allow):
                self._settle()
            return verdict

    def roll_back(self, to: Version, tell: Callable[[Version], None]) -> Version:
        """Have the ledger go back to an earlier version, and make it the champion again.

        Args:
            to: the base, or a champion from before the one that stands.
            tell: has the ledger write it down.

        Raises:
            ChampionError: it is no such version, or isn't what it was.
        """
        with self._locked():
            found = self._read(to.path, self._promotions(), expected=to.artifact)
            if found.current or found.state not in ("base", "promoted"):
                state = "the champion itself" if found.current else f"one that is {found.state}"
                raise ChampionError(
                    f"version {to.name}: expected the base or an earlier champion, found {state}"
                )
            tell(found)
            return self._settle()

    def settle(self) -> Version:
        """Bring `current.json` to what the ledger says, as after a crash between the two; the champion.

        Raises:
            ChampionError: there is none, or its file isn't what was promoted.
        """
        self.champion()
        with self._locked():
            return self._settle()

    def _settle(self) -> Version:
        champion = self.champion()
        told = {"artifact": champion.artifact, "file": champion.path.name}
        content = rfc8785.dumps({**told, "generation": champion.manifest.generation})
        pointer = self.folder / POINTER
        if not pointer.is_file() or pointer.read_bytes() != content:
            write_durably(pointer, content)
        return champion

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

    def _path_by(self, artifact: str) -> Path:
        paths = [path for path in paths_in(self.folder) if path.stem.partition("-")[2] == artifact[:12]]
        if len(paths) != 1:
            raise ChampionError(f"version {artifact!r:.80} of lineage {self.lineage}: not in {self.folder}")
        return paths[0]

    def _read(self, path: Path, promotions: Sequence[Promoted], expected: str = "") -> Version:
        return placed(read(path, self.lineage, expected), promotions)

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.folder / LOCK)


def _pointed(pointer: Path) -> set[str]:
    """The base that a pointer tells of."""
    try:
        told = json.loads(bytes_of(pointer))
        return {str(told["artifact"])} if told["generation"] == BASE else set()
    except (ChampionError, ValueError, KeyError, TypeError):
        return set()
