"""The domain `code_generation`: Python, as written in the standard library's own sources."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from rsi_ray.tasks.text import TextDomain, text_domain, without_repeats


def code_generation(*, length: int, holdout_size: int, max_bytes: int) -> TextDomain:
    """Predict the next byte of the running Python's standard library.

    Args:
        length: bytes per sample.
        holdout_size: hold-out samples, and as many that are sealed.
        max_bytes: how much source is kept; where there is more, modules are left out evenly.

    Raises:
        ValueError: this Python carries no sources, or too few for the hold-out.
    """
    text = without_repeats(_sources(Path(sysconfig.get_path("stdlib")), max_bytes))[:max_bytes]
    return text_domain("code_generation", text, length=length, holdout_size=holdout_size)


def _sources(stdlib: Path, max_bytes: int) -> list[bytes]:
    """Read the top-level modules by name; what a distribution or site adds there is not the library's."""
    paths = sorted(path for path in stdlib.glob("*.py") if path.stem in sys.stdlib_module_names)
    sources = [path.read_bytes() for path in paths]
    keep_every = max(1, -(-sum(map(len, sources)) // max_bytes))
    return sources[::keep_every]
