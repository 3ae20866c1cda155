"""Ports for servers of the tests' own."""

from __future__ import annotations

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listened at a moment ago."""
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])
