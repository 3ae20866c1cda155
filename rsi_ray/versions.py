"""Versions of Python and of the libraries, as they are installed here."""

from __future__ import annotations

import platform
from importlib.metadata import version

# what a run's scores depend on beside space, configuration and seed
LIBRARIES = ("rsi-ray", "torch", "ray", "optuna", "numpy")
# and what a ledger depends on
DECIDING = ("SQLAlchemy", "pydantic", "cryptography", "rfc8785")


def versions_here() -> dict[str, str]:
    """Of Python and of the libraries that decide, train and sign."""
    return {"python": platform.python_version(), **{name: version(name) for name in (*LIBRARIES, *DECIDING)}}
