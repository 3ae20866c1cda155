"""What is saved of an emergency shutdown, for whoever looks into it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsi_ray.durable import write_durably
from safety import ArtifactError, artifact_digest
from safety.audit import Row
from safety.emergency import Incident
from safety.report import utc

# written last: where it is, all is
MANIFEST = "incident.json"
WEIGHTS = "champion.safetensors"


@dataclass(frozen=True, kw_only=True)
class State:
    """What is there to save.

    Attributes:
        ledger: what the ledger has of the lineage, as plain values.
        history: the modifications, as plain values.
        audit: its rows, in order.
        log: lines of this process's log.
        versions: of what is installed.
        weights: file of the present champion; None where there is none.
        expected: its digest by the ledger; "" where nobody told.
    """

    ledger: Mapping[str, Any]
    history: Any
    audit: Iterable[Row]
    log: Iterable[str]
    versions: Mapping[str, str]
    weights: Path | None
    expected: str


def is_saved(folder: Path) -> bool:
    """Whether a shutdown is saved in its folder already."""
    return (folder / MANIFEST).is_file()


def save(folder: Path, incident: Incident, state: State) -> None:
    """Save it all; what a crash left in the middle is written anew.

    Args:
        folder: of this incident.
        incident: as it is now.
        state: what is saved.

    Raises:
        OSError: it can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], Iterator[bytes]]] = {
        "state.json": lambda: _json(state.ledger),
        "history.json": lambda: _json(state.history),
        "versions.json": lambda: _json(state.versions),
        "audit.jsonl": lambda: map(_line, state.audit),
        "log.txt": lambda: (f"{line}\n".encode(errors="replace") for line in state.log),
    }
    files = {name: _written(folder / name, content()) for name, content in parts.items()}
    weights = _weights(folder, state)
    manifest = {
        "format": 1,
        **{name: value for name, value in asdict(incident).items() if name != "done"},
        "at": utc(incident.at_ms),
        "files": files,
        "weights": weights,
    }
    write_durably(folder / MANIFEST, b"".join(_json(manifest)))


def _weights(folder: Path, state: State) -> dict[str, Any]:
    """Copy the champion's weights; what is wrong with them is told, and keeps nothing from being saved."""
    if state.weights is None:
        return {"problem": "there is no file of a champion"}
    try:
        artifact_digest(state.weights)  # a link is no weights
        shutil.copyfile(state.weights, folder / WEIGHTS, follow_symlinks=False)
        _sync(folder / WEIGHTS)
        digest = artifact_digest(folder / WEIGHTS)
    except (ArtifactError, OSError) as error:
        return {"problem": str(error)}
    same = state.expected in ("", digest)
    told = {"file": WEIGHTS, "sha256": digest, "from": str(state.weights)}
    return told if same else {**told, "problem": f"the ledger has promoted {state.expected}"}


def _written(path: Path, parts: Iterable[bytes]) -> str:
    """Write a file to the disk; its SHA-256."""
    hashed = hashlib.sha256()
    with path.open("wb") as file:
        for part in parts:
            hashed.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return hashed.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _json(value: Any) -> Iterator[bytes]:
    yield json.dumps(value, indent=2, sort_keys=True, default=str).encode() + b"\n"


def _line(row: Row) -> bytes:
    seq, entry, row_hash = row
    return json.dumps({"seq": seq, **asdict(entry), "hash": row_hash}, sort_keys=True).encode() + b"\n"
