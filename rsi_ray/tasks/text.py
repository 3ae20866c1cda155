"""Next-byte prediction on a text, with hold-out and sealed spans spread evenly over it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rsi_ray.tasks.task import Batch
from search_spaces.transformer import Head

MAX_BYTES = 2**30
"""Places in a text are held as int32."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TextDomain:
    """A dense domain over one text.

    Attributes:
        head: dense, 256 classes (bytes).
        text: the whole text, uint8, shape (N,).
        train_starts: where training windows of length + 1 bytes may start; none touches a span that is held.
        holdout_starts, sealed_starts: where the spans of length + 1 bytes start that are held out, or sealed.
    """

    head: Head
    text: NDArray[np.uint8]
    train_starts: NDArray[np.int32]
    holdout_starts: NDArray[np.int32]
    sealed_starts: NDArray[np.int32]

    @property
    def digest(self) -> str:
        """SHA-256 of the text and of the place and length of the spans that are held, in hex."""
        digest = hashlib.sha256(self.text.tobytes())
        for starts in (self.holdout_starts, self.sealed_starts):
            digest.update(starts.astype("<i4").tobytes())
        digest.update(str(self.head.length).encode())
        return digest.hexdigest()

    def draw(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw `size` windows: inputs and targets (size, length), each target the byte that follows."""
        return self._windows(self.pick(rng, size))

    def pick(self, rng: np.random.Generator, size: int) -> NDArray[np.int32]:
        """Choose where `size` training windows start."""
        return self.train_starts[rng.integers(len(self.train_starts), size=size)]

    def holdout(self) -> Batch:
        """Return the hold-out spans in the order of the text, in the shapes of `draw`."""
        return self._windows(self.holdout_starts)

    def sealed(self) -> Batch:
        """Return the sealed spans in the order of the text, in the shapes of `draw`."""
        return self._windows(self.sealed_starts)

    def _windows(self, starts: NDArray[np.int32]) -> Batch:
        windows = self.text[starts[:, None] + np.arange(self.head.length + 1)].astype(np.int64)
        return Batch(inputs=windows[:, :-1], targets=windows[:, 1:])


def text_domain(name: str, text: bytes, *, length: int, holdout_size: int) -> TextDomain:
    """Split a text into twice `holdout_size` equal parts; the rest around their spans is for training.

    In turn, the span of a part is held out and sealed.

    Raises:
        ValueError: the text is too short for that many spans, or too long, or a part of it only repeats
            others.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"{name}: {len(text)} bytes are too many, expected at most {MAX_BYTES}")
    part = len(text) // (2 * holdout_size)
    if part < 4 * (length + 1):
        raise ValueError(
            f"{name}: {len(text)} bytes are too few for {holdout_size} hold-out spans of {length + 1} bytes, "
            "and as many sealed"
        )
    parts = range(0, 2 * part * holdout_size, part)
    starts = np.array([_unrepeated(name, text, at, at + part, length + 1) for at in parts], dtype=np.int32)
    return TextDomain(
        head=Head(name=name, classes=256, length=length, dense=True),
        text=np.frombuffer(text, dtype=np.uint8),
        train_starts=_starts_clear_of(starts, len(text), length + 1),
        holdout_starts=starts[::2],
        sealed_starts=starts[1::2],
    )


def without_repeats(texts: Iterable[bytes]) -> bytes:
    """Join texts, keeping each paragraph once: boilerplate must not carry what is held into training."""
    paragraphs = (paragraph for text in texts for paragraph in text.split(b"\n\n"))
    return b"\n\n".join(dict.fromkeys(paragraphs))


def _unrepeated(name: str, text: bytes, start: int, stop: int, span: int) -> int:
    """Return the first place in the part whose span occurs nowhere else in the text."""
    for at in range(start, stop - span, span):
        piece = text[at : at + span]
        if text.find(piece) == at and text.find(piece, at + 1) == -1:
            return at
    raise ValueError(f"{name}: bytes {start} to {stop} hold no span of {span} bytes that occurs only once")


def _starts_clear_of(held_starts: NDArray[np.int32], size: int, span: int) -> NDArray[np.int32]:
    """Return every start of a window of `span` bytes that shares no byte with a span that is held."""
    clear = np.ones(size - span + 1, dtype=bool)
    # A window overlaps a span exactly when their starts lie less than `span` apart.
    near = held_starts[:, None] + np.arange(1 - span, span)
    clear[near[(near >= 0) & (near < len(clear))]] = False
    return np.flatnonzero(clear).astype(np.int32)
