"""Ray shell: the cluster that a driver joins, or one of its own."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayError

from rsi_ray.printable import one_line
from safety.environment import environment
from safety.errors import ClusterUnreachable

# read by Ray where it starts workers
OVERRIDE_ON_ZERO = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
# that a control store gets to open its door
KNOCK_SECONDS = 5
# of what Ray says where it can't be joined
MOST_CHARACTERS = 400


@contextmanager
def local_ray() -> Iterator[str]:
    """The cluster that RAY_ADDRESS names, or a Ray of this process's own; gives its dashboard's address.

    Where this process is connected to one already, it is that one.

    Raises:
        ClusterUnreachable: nothing answers where one is named, or it lets nobody in who is as this process.
    """
    if ray.is_initialized():
        yield _dashboard_url()
        return
    asked = os.environ.get(OVERRIDE_ON_ZERO, "0")
    with environment({OVERRIDE_ON_ZERO: asked}):
        # set by Ray itself for a job that was submitted to a cluster
        address = os.environ.get("RAY_ADDRESS", "local")
        _check_it_answers(address)
        _join(address)
        try:
            yield _dashboard_url()
        finally:
            ray.shutdown()


def _join(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (RayError, RuntimeError, ValueError, OSError) as error:
        # of versions that differ Ray tells on several lines
        told = " ".join(str(error).split())[:MOST_CHARACTERS] or type(error).__name__
        raise ClusterUnreachable(f"the Ray cluster {address} can't be joined: {told}") from None


def _check_it_answers(address: str) -> None:
    """Knock at a cluster's control store: Ray itself would wait for minutes.

    Raises:
        ClusterUnreachable: nobody opens.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except OSError as error:
        raise ClusterUnreachable(f"no Ray cluster answers at {address}: {one_line(error)}") from None


def _dashboard_url() -> str:
    return str(ray._private.worker.get_dashboard_url() or "")
