"""Which Ray cluster a command is about: the one that is named, or that runs here."""

from __future__ import annotations

import os

import psutil

from rsi_ray.errors import RunError


def address_here() -> str | None:
    """Of the cluster to look at if nobody names one: "auto" where Ray has to find it; None for none."""
    named = os.environ.get("RAY_ADDRESS")
    if named:
        return named
    # its name, and not Ray, which takes a second to load
    return "auto" if any(one.info["name"] == "gcs_server" for one in psutil.process_iter(["name"])) else None


def have_joined(address: str) -> None:
    """Have Ray join a cluster, here and in what this process starts.

    Raises:
        RunError: it is no address that a driver can join.
    """
    if "://" in address:
        raise RunError(
            f"--address {address}: expected HOST:PORT of a cluster's control store, or auto, on one of its "
            "hosts; from elsewhere, `rsi-ray submit` takes the URL of its dashboard"
        )
    os.environ["RAY_ADDRESS"] = address
