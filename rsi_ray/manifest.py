"""What a champion's file says of itself, bound together with its weights by the file's digest."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from rsi_ray.description import Json, rebuilt
from rsi_ray.errors import ChampionError
from safety import Document, DocumentError, StrictModel, validate
from safety.document import whole_number
from search_spaces.given_trial import spec_from

# the one entry of a safetensors file's metadata: with several, their order would change the digest
ENTRY = "rsi_ray.champion"
LENGTH_BYTES = 8
# safetensors reads no longer header
MOST_HEADER_BYTES = 100_000_000


def _digits(value: object) -> int:
    """FLOPs are beyond what JSON's numbers hold exactly, so a file has them as text."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    raise ValueError("expected a whole number, in digits")


Exact = Annotated[int, BeforeValidator(_digits), PlainSerializer(str)]
Whole = Annotated[int, BeforeValidator(whole_number)]


class Manifest(StrictModel):
    """What a champion is, and where it comes from.

    Attributes:
        lineage: line of champions that it belongs to.
        generation: its number; 0 for the lineage's base.
        parent: digest of the file whose place it would take; "" for the base.
        parent_generation: that one's number.
        base: digest of what the lineage began with, which the ledger doesn't know; "" for the base itself.
        weights: digest of the file that its weights were in before, which its evidence names.
        space: what it was chosen from, see `description.describe`.
        spec: its architecture, likewise.
        config: parameters that a sampler suggested for it.
        training: how it was trained.
        params: numbers that are trained.
        train_flops: of its own training.
        ancestor_flops: of the trainings of all whose weights it inherits.
        trial: RUN/NUMBER or other name of what trained it.
    """

    lineage: str
    generation: Whole
    parent: str
    parent_generation: Whole
    base: str
    weights: str
    space: Any
    spec: Any
    config: dict[str, Any] = Field(default_factory=dict)
    training: Any = None
    params: Whole
    train_flops: Exact
    ancestor_flops: Exact = 0
    trial: str = ""

    @property
    def total_flops(self) -> int:
        """Of its own training and its ancestors'."""
        return self.train_flops + self.ancestor_flops

    @property
    def canonical(self) -> str:
        """JSON of all of it, sorted: RFC 8785 would write 0.0 as 0, which is another type when it is read.

        Raises:
            ChampionError: a number in it is not finite.
        """
        try:
            return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        except ValueError as error:
            raise ChampionError(f"manifest of {self.lineage}: {error}") from None

    def rebuilt_space(self) -> Any:
        """The space; what it names is imported.

        Raises:
            ChampionError: it can't be rebuilt from here.
        """
        return self._rebuilt("space", self.space)

    def rebuilt_spec(self, space: Any) -> Any:
        """The spec, by its own description or, where that can't be read back, by its parameters.

        Raises:
            ChampionError: neither does.
        """
        try:
            return rebuilt(self.spec)
        except ValueError as error:
            try:
                return spec_from(space, self.config)[0]
            except ValueError:
                raise ChampionError(
                    f"spec of {self.lineage}, generation {self.generation}: {error}"
                ) from None

    def _rebuilt(self, what: str, description: Json) -> Any:
        try:
            return rebuilt(description)
        except ValueError as error:
            raise ChampionError(f"{what} of {self.lineage}, generation {self.generation}: {error}") from None


def with_manifest(weights: bytes, manifest: Manifest, *, source: str) -> bytes:
    """A safetensors file with the same tensors and this manifest; of the same two it is the same file.

    Args:
        weights: a safetensors file.
        manifest: its only metadata.
        source: where the weights come from, for messages.

    Raises:
        ChampionError: they are no safetensors file.
    """
    header, tensors = _split(weights, source)
    told = {ENTRY: manifest.canonical}
    plain = {name: header[name] for name in sorted(header) if name != "__metadata__"}
    text = json.dumps({"__metadata__": told, **plain}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)  # the tensors begin at a multiple of it
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + tensors


def manifest_in(content: bytes, *, source: str) -> Manifest:
    """The manifest of a champion's file.

    Raises:
        ChampionError: it is no safetensors file, or has no manifest that can be read.
    """
    header, _ = _split(content, source)
    metadata = header.get("__metadata__")
    text = metadata.get(ENTRY) if isinstance(metadata, dict) else None
    try:
        if not isinstance(text, str):
            raise ChampionError(f"champion {source}: no manifest in it, so it is no version of a champion")
        return validate(Manifest, Document(source=f"champion {source}", data=json.loads(text)))
    except (ValueError, RecursionError, DocumentError) as error:
        raise ChampionError(f"champion {source}: its manifest can't be read: {error}") from None


def _split(content: bytes, source: str) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file; nothing in it is run."""
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    end = LENGTH_BYTES + length
    try:
        if not 2 <= length <= min(MOST_HEADER_BYTES, len(content) - LENGTH_BYTES):
            raise ValueError("its header is cut or too long")
        header = json.loads(content[LENGTH_BYTES:end])
        if not isinstance(header, dict):
            raise ValueError("its header is no mapping")
    except (ValueError, RecursionError) as error:
        raise ChampionError(
            f"weights {source}: expected a safetensors file, and nothing else is read, pickles least of all: "
            f"{error}"
        ) from None
    return header, content[end:]
