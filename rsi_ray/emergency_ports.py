"""What an emergency shutdown of a lineage works on: its champions on disk, and this installation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rsi_ray.champion import ChampionStore
from rsi_ray.emergency import FOLDER, Authority, Ports
from rsi_ray.errors import ChampionError
from rsi_ray.oversight import this_user
from rsi_ray.plan import Plan
from rsi_ray.versions import versions_here
from safety.database import without_password


def ports_of(
    plan: Plan, authority: Authority, ledger: str, store: ChampionStore, log: Callable[[], list[str]]
) -> Ports:
    """The ports of a lineage's shutdown.

    Args:
        plan: of its sweeps; where they are kept, and where it is told.
        authority: the ledger, or who fronts it.
        ledger: its URL.
        store: of its champions.
        log: lines of this process's log.
    """

    def weights() -> Path | None:
        try:
            version = store.current()
        except ChampionError:  # a damaged champion must not keep a lineage from being taken back
            return None
        return version.path if version else None

    def reverted(_artifact: str) -> Path | None:
        return store.settle().path if store.current() else None

    return Ports(
        authority=authority,
        ledger=without_password(ledger),
        folder=plan.folder.parent / FOLDER,
        alerts=plan.alerts,
        weights=weights,
        revert=reverted,
        history=lambda: [asdict(one) for one in store.history()],
        log=log,
        versions=versions_here,
        by=this_user(),
    )
