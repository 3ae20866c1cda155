"""Ray shell: a driver's thread that ends its workers at once when its sweep is killed or frozen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from safety.errors import SafetyError
from safety.governance import Governance
from safety.lease import FROZEN, KILLED

WATCH_SECONDS = 0.25


@contextmanager
def watched(governance: Governance) -> Iterator[None]:
    """Ask after the sweep's state meanwhile, whatever Tune's loop is busy with.

    A worker that hears nothing of it dies at the end of its lease all the same: this is faster, and reaches
    one that is stuck.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(governance, over), name="sweep-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(governance: Governance, over: threading.Event) -> None:
    while not over.wait(WATCH_SECONDS):
        try:
            state = governance.authority.state(governance.sweep)
        except SafetyError:
            continue  # silence denies: no lease is renewed either
        if state in (KILLED, FROZEN):
            end_workers(governance.heard.controller)


def end_workers(controller: Any) -> int:
    """Kill every process that a Tune controller has for its trials; the number of them."""
    if controller is None:
        return 0
    live = list(controller._actor_manager._live_actors_to_ray_actors_resources.values())
    for actor, _ in live:
        ray.kill(actor)
    return len(live)
