"""Versions of Python and of the libraries, as they are installed here."""

from __future__ import annotations

import platform
from importlib.metadata import version

# of this project; a job carries the package without installing it
VERSION = "0.1.0"

PROJECT = "rsi-ray"
# what a run's scores depend on beside space, configuration and seed
LIBRARIES = (PROJECT, "torch", "ray", "optuna", "numpy")
# and what a ledger depends on
DECIDING = ("SQLAlchemy", "pydantic", "cryptography", "rfc8785")


def versions_here() -> dict[str, str]:
    """Of Python and of the libraries that decide, train and sign."""
    deciding = {name: version(name) for name in DECIDING}
    return {"python": platform.python_version(), **libraries_here(), **deciding}


def libraries_here() -> dict[str, str]:
    """Of the libraries that scores depend on."""
    return {name: VERSION if name == PROJECT else version(name) for name in LIBRARIES}
