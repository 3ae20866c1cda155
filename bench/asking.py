"""A driver that asks for claims until one is denied, as a process: `python -m bench.asking settings.json`."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import ray

from safety import Bounds, Budgets, Claim, Deny, Hold, Limits, Request, Usage
from safety.actor import GovernorClient, connect
from safety.document import FLOPS_PER_GFLOP
from safety.errors import GovernorUnreachable

# all of them ask from the moment on when this file is in their folder
GO = "go"
HOLD_SECONDS = 0.02
WALL_MS, PARAMS = 600_000, 7

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one driver is told.

    Attributes:
        folder: of all drivers of the race.
        address: of the Ray.
        ledger: SQLAlchemy URL.
        sweep: name of its own in the ledger.
        cap: GFLOP of the cluster's budget.
        least: GFLOP of its smallest claim.
        most: GFLOP of its largest one.
    """

    folder: str
    address: str
    ledger: str
    sweep: str
    cap: int
    least: int
    most: int


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What became of a driver's questions.

    Attributes:
        claims: that were granted, and used up.
        gflop: of them.
        holds: answers that it might ask again.
        silences: questions that were asked again because no answer came.
        rule: of the denial that was the last answer.
        reason: its numbers.
    """

    claims: int
    gflop: int
    holds: int
    silences: int
    rule: str
    reason: str


def limits(cap: int) -> Limits:
    """Limits of every sweep in the race; a lease outlives it."""
    bounds = Bounds(max_params=1000, max_flops=1000, max_memory=1000)
    budgets = Budgets(train_flops=cap * FLOPS_PER_GFLOP)
    return Limits(bounds=bounds, cluster=budgets, lease_seconds=3600)


def wish(sweep: str, number: int, gflop: int) -> Request:
    """The request for one trial of a sweep."""
    claim = Claim(
        params=PARAMS,
        forward_flops=1,
        memory_bytes=1,
        train_flops=gflop * FLOPS_PER_GFLOP,
        wall_ms=WALL_MS,
    )
    return Request(key=f"{sweep}/{number}", digest="d", sweep=sweep, claim=claim)


class Insistent:
    """Asks again where no answer comes: every question is safe to repeat.

    Attributes:
        silences: so far.
    """

    def __init__(self) -> None:
        self.silences = 0

    def __call__(self, ask: Callable[..., Answer], *arguments: object) -> Answer:
        """The answer."""
        while True:
            with suppress(GovernorUnreachable):
                return ask(*arguments)
            self.silences += 1


def ask_until_denied(governor: GovernorClient, settings: Settings) -> Asked:
    """Ask, use up what is granted, and ask again."""
    sizes, holds, answer = random.Random(settings.sweep), 0, Insistent()
    granted: list[int] = []
    while True:
        size = sizes.randint(settings.least, settings.most)
        request = wish(settings.sweep, len(granted) + 1, size)
        while isinstance(verdict := answer(governor.admit, request), Hold):
            holds += 1
            time.sleep(HOLD_SECONDS)
        if isinstance(verdict, Deny):
            break
        grant = answer(governor.activate, request.key, request.digest, str(os.getpid()), None)
        used = Usage(train_flops=size * FLOPS_PER_GFLOP, reports=1)
        answer(governor.settle, grant.lease, grant.fence, used)
        granted.append(size)
    return Asked(
        claims=len(granted),
        gflop=sum(granted),
        holds=holds,
        silences=answer.silences,
        rule=verdict.rule,
        reason=verdict.reason,
    )


def keep_one(governor: GovernorClient, sweep: str) -> None:
    """Begin a lease that trains nothing, and leave it open."""
    request, answer = wish(sweep, 0, 0), Insistent()
    answer(governor.admit, request)
    answer(governor.activate, request.key, request.digest, str(os.getpid()), None)


def main() -> None:
    """Be ready, wait for the others, ask."""
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text()))
    folder = Path(settings.folder)
    ray.init(address=settings.address, log_to_driver=False)
    governor = Insistent()(connect, settings.ledger)
    Insistent()(governor.open_sweep, settings.sweep, limits(settings.cap))
    keep_one(governor, settings.sweep)
    (folder / f"{settings.sweep}.ready").touch()
    while not (folder / GO).exists():
        time.sleep(0.01)
    asked = ask_until_denied(governor, settings)
    (folder / f"{settings.sweep}.asked").write_text(json.dumps(asdict(asked)))


if __name__ == "__main__":
    main()
