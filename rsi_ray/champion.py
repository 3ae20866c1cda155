"""The versions of a lineage's champion on disk, as they are written: staged, promoted, taken back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import rfc8785

from rsi_ray.champion_line import POINTER, ChampionLine
from rsi_ray.champion_version import (
    BASE,
    Candidate,
    Version,
    bytes_of,
    digest_of,
    file_of,
    path_in,
    paths_in,
    put,
)
from rsi_ray.durable import locked, write_durably
from rsi_ray.errors import ChampionError
from safety import Allow, Champion, Deny, Verdict

# in the storage; each lineage has a folder of its name in it
FOLDER = "champions"
LOCK = ".lock"


class ChampionStore(ChampionLine):
    """One lineage's versions, in a folder of the lineage's name.

    Weights and manifest are one file, whose digest is what is approved. The ledger's promotions are the
    truth; `current.json` repeats it for whoever doesn't read the ledger, and `settle` brings it forward.

    Args:
        folder: of the lineage; it is made with the base.
        record: the ledger.

    Raises:
        ChampionError: no lineage has the folder's name.
    """

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

    def _path_by(self, artifact: str) -> Path:
        paths = [path for path in paths_in(self.folder) if path.stem.partition("-")[2] == artifact[:12]]
        if len(paths) != 1:
            raise ChampionError(f"version {artifact!r:.80} of lineage {self.lineage}: not in {self.folder}")
        return paths[0]

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.folder / LOCK)
