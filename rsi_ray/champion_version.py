"""One version of a champion: a file of weights and manifest, and beside it what was measured of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from rsi_ray.description import Json
from rsi_ray.durable import write_durably
from rsi_ray.errors import ChampionError
from rsi_ray.manifest import Manifest, manifest_in, with_manifest
from safety import ArtifactError, Champion, Promoted, read_plain_file
from safety.claim import gflop
from safety.document import MAX_FLOPS

SUFFIX, EVIDENCE = ".safetensors", ".evidence.json"
# of a digest, in a file's name
SHOWN = 12
LEAST_SHOWN = 4
BASE = 0

State = Literal["base", "candidate", "promoted", "rolled back"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What may become a version.

    Attributes:
        weights: a safetensors file, or its content.
        space: description of what it was chosen from, see `description.describe`.
        spec: description of its architecture.
        config: parameters that a sampler suggested for it.
        training: description of how it was trained.
        params: numbers that are trained.
        train_flops: of its own training.
        inherits: whether it started from the champion's weights: then that one's FLOPs count with its own.
        evidence: what was measured of it, canonical JSON.
        trial: name of what trained it.
    """

    weights: Path | bytes
    space: Json
    spec: Json
    config: dict[str, Any]
    training: Json
    params: int
    train_flops: int
    inherits: bool
    evidence: bytes
    trial: str = ""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version as it was when its files were read.

    Attributes:
        path: of weights and manifest.
        artifact: digest of that file.
        manifest: what it says of itself.
        evidence: content of the file beside it; None where there is none.
        state: base, candidate, promoted or rolled back.
        current: whether it is the champion.
        promoted: its promotion; None where there was none.
    """

    path: Path
    artifact: str
    manifest: Manifest
    evidence: bytes | None
    state: State = "candidate"
    current: bool = False
    promoted: Promoted | None = None

    @property
    def name(self) -> str:
        """Its generation, and the beginning of its digest."""
        return stem(self.manifest.generation, self.artifact)

    @property
    def champion(self) -> Champion:
        """What the ledger is asked to promote.

        Raises:
            ChampionError: nothing was measured of it, or no ledger holds its FLOPs.
        """
        manifest = self.manifest
        if not manifest.total_flops <= MAX_FLOPS:
            told = f"{manifest.total_flops:.3e} FLOPs of training are more than a ledger holds"
            raise ChampionError(f"version {self.name}: {told}; expected at most {MAX_FLOPS:.3e}")
        if self.evidence is None:
            raise ChampionError(f"version {self.name}: {evidence_of(self.path)} is missing")
        return Champion(
            artifact=self.artifact,
            # the base was never promoted: to the ledger it is nobody's parent
            parent=manifest.parent if manifest.parent_generation > BASE else "",
            generation=manifest.generation,
            evidence=digest_of(self.evidence),
            train_gflop=gflop(manifest.total_flops),
        )


def digest_of(content: bytes) -> str:
    """SHA-256, 64 hexadecimal digits; of a file's content it is what `artifact_digest` gives."""
    return hashlib.sha256(content).hexdigest()


def stem(generation: int, artifact: str) -> str:
    """A version's name: its file's, without the end."""
    return f"{generation}-{artifact[:SHOWN]}"


def path_in(folder: Path, generation: int, artifact: str) -> Path:
    """Where a version's file lies."""
    return folder / f"{stem(generation, artifact)}{SUFFIX}"


def paths_in(folder: Path) -> list[Path]:
    """Files that may be versions, in the order of their generations."""
    return sorted(folder.glob(f"*{SUFFIX}"), key=_place)


def _place(path: Path) -> tuple[int, str]:
    number = path.stem.partition("-")[0]
    return (int(number) if re.fullmatch(r"[0-9]{1,9}", number) else -1, path.stem)


def named(paths: Sequence[Path], name: str) -> list[Path]:
    """Those of a generation; where there are none, those whose digest or whole name begins so."""
    by_generation = [path for path in paths if path.stem.partition("-")[0] == name]
    if by_generation or len(name) < LEAST_SHOWN:
        return by_generation
    return [path for path in paths if name == path.stem or path.stem.partition("-")[2] == name[:SHOWN]] or [
        path for path in paths if path.stem.partition("-")[2].startswith(name)
    ]


def evidence_of(path: Path) -> Path:
    """Where the evidence of a version's file lies."""
    return path.with_name(f"{path.stem}{EVIDENCE}")


def file_of(candidate: Candidate, lineage: str, parent: Version | None, generation: int) -> bytes:
    """Content of a candidate's file.

    Args:
        candidate: whose it is.
        lineage: that it belongs to.
        parent: the champion whose place it would take; None for the base.
        generation: its number.

    Raises:
        ChampionError: the weights are no safetensors file, but a pickle, a link or whatever else, or the
            evidence is of others.
    """
    given = candidate.weights
    source = str(given) if isinstance(given, Path) else f"of lineage {lineage}"
    weights = bytes_of(given) if isinstance(given, Path) else given
    measured = _weights_in(candidate.evidence)
    if measured not in ("", digest_of(weights)):
        raise ChampionError(f"weights {source}: the evidence is of other ones, with the digest {measured}")
    manifest = Manifest(
        lineage=lineage,
        generation=generation,
        parent=parent.artifact if parent else "",
        parent_generation=parent.manifest.generation if parent else BASE,
        base=(parent.manifest.base or parent.artifact) if parent else "",
        weights=digest_of(weights),
        space=candidate.space,
        spec=candidate.spec,
        config=candidate.config,
        training=candidate.training,
        params=candidate.params,
        train_flops=candidate.train_flops,
        ancestor_flops=parent.manifest.total_flops if parent and candidate.inherits else 0,
        trial=candidate.trial,
    )
    return with_manifest(weights, manifest, source=source)


def _weights_in(evidence: bytes) -> str:
    """Digest of the weights that were measured; "" where it isn't told."""
    try:
        told = json.loads(evidence)
    except ValueError as error:
        raise ChampionError(f"evidence: expected JSON: {error}") from None
    return str(told.get("weights", "")) if isinstance(told, dict) else ""


def put(path: Path, content: bytes, evidence: bytes) -> None:
    """Write a version down.

    Raises:
        ChampionError: the content is no whole safetensors file; nothing is there then.
    """
    # the evidence first: a version that is there has its own
    write_durably(evidence_of(path), evidence)
    try:
        write_durably(path, content, _require_safetensors)
    except ChampionError:
        evidence_of(path).unlink()
        raise


def _require_safetensors(path: Path) -> None:
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        raise ChampionError(f"weights {path.name}: no whole safetensors file: {error}") from None


def read(path: Path, lineage: str, expected: str = "") -> Version:
    """Read a version, whose name is that of its content.

    Args:
        path: of its file.
        lineage: that it must be of.
        expected: digest that its content must have; "" for any that begins as the name says.

    Raises:
        ChampionError: it isn't there, or isn't what it was.
    """
    content, artifact = _hashed(path)
    if expected not in ("", artifact) or not path.stem.endswith(f"-{artifact[:SHOWN]}"):
        wanted = expected or "one that begins as its name ends"
        raise ChampionError(
            f"champion {path}: it isn't what it was: its digest is {artifact}, expected {wanted}"
        )
    manifest = manifest_in(content, source=str(path))
    if (manifest.lineage, path.stem) != (lineage, stem(manifest.generation, artifact)):
        told = f"generation {manifest.generation} of lineage {manifest.lineage}"
        raise ChampionError(f"champion {path}: expected a version of lineage {lineage}, found {told}")
    beside = evidence_of(path)
    evidence = bytes_of(beside) if beside.exists() or beside.is_symlink() else None
    return Version(path=path, artifact=artifact, manifest=manifest, evidence=evidence)


def content_of(version: Version) -> bytes:
    """Content of a version's file, which is what it was.

    Raises:
        ChampionError: it isn't any more.
    """
    content, artifact = _hashed(version.path)
    if artifact != version.artifact:
        raise ChampionError(f"champion {version.path}: its digest is {artifact}, expected {version.artifact}")
    return content


def _hashed(path: Path) -> tuple[bytes, str]:
    content = bytes_of(path)
    return content, digest_of(content)


def bytes_of(path: Path) -> bytes:
    """Content of a plain file.

    Raises:
        ChampionError: it is a link, no plain file, or can't be read.
    """
    try:
        return read_plain_file(path)
    except ArtifactError as error:
        raise ChampionError(str(error)) from None


def standing(promotions: Sequence[Promoted]) -> list[tuple[Promoted, Champion]]:
    """The champions that a lineage didn't go back from, in order; the last one stands."""
    return [(one, one.champion) for one in promotions if one.champion and not one.rolled_back]


def placed(version: Version, promotions: Sequence[Promoted]) -> Version:
    """A version with what the ledger says of it."""
    champions = [champion.artifact for _, champion in standing(promotions)]
    if version.manifest.generation == BASE:
        return replace(version, state="base", current=not champions)
    mine = [one for one in promotions if one.champion and one.champion.artifact == version.artifact]
    if not mine:
        return version
    told = mine[-1].champion
    if told and version.evidence is not None and digest_of(version.evidence) != told.evidence:
        raise ChampionError(
            f"version {version.name}: {evidence_of(version.path)} was changed; "
            "it is not that by which it was promoted"
        )
    state: State = "rolled back" if mine[-1].rolled_back else "promoted"
    return replace(version, state=state, current=champions[-1:] == [version.artifact], promoted=mine[-1])
