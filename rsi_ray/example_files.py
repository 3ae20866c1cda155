"""The example jobs that come with the package, as files."""

from __future__ import annotations

from importlib import resources
from typing import Any

from safety import DocumentError
from safety.document import shown


def examples() -> list[str]:
    """Names of the examples that come with the package."""
    folder = resources.files("rsi_ray") / "examples"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def example_file(name: str) -> Any:
    """An example's file, as a package resource.

    Raises:
        DocumentError: there is no such example.
    """
    if name not in examples():
        raise DocumentError(f"example {shown(name)}: expected one of {', '.join(examples())}")
    return resources.files("rsi_ray") / "examples" / f"{name}.yaml"
