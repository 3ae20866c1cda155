"""The command that looks a cluster over before anything runs on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from rsi_ray.cluster_address import address_here, have_joined
from rsi_ray.doctor import Level, findings, lines
from rsi_ray.errors import SweepError
from rsi_ray.ledgers import RUNS, from_anywhere, sqlite_path
from rsi_ray.oversight import Storage, Url, app
from rsi_ray.printable import printable
from rsi_ray.versions import versions_here
from safety import system_clock

FAILURE = 1

Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster, HOST:PORT or auto; RAY_ADDRESS, the one here, or one of its own, if left out"
    ),
]


@app.command()
def doctor(
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    artifacts: Annotated[
        str | None, typer.Option(help="URI of a store that workers write into, instead of the storage")
    ] = None,
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object per line")] = False,
) -> None:
    """Look a cluster over, from its head, before anything runs on it: a line each, with what to do.

    Exit code 1 where something must be mended first.
    """
    found_here = address or address_here()
    if found_here is not None:
        have_joined(found_here)
    url = from_anywhere(ledger) if ledger else ""
    for problem in import_module("rsi_ray.places").problems_of_places(storage, artifacts, url or None):
        raise SweepError(problem)
    look = import_module("rsi_ray.examination")
    with import_module("rsi_ray.connection").local_ray() as dashboard:
        watch = look.watch(url, storage)
        found = findings(
            look.nodes(storage.absolute(), sqlite_path(watch.ledger or url), artifacts or ""),
            look.access(dashboard),
            watch,
            versions_here(),
            system_clock().wall_ms(),
            artifacts=artifacts or "",
        )
    for one, line in zip(found, lines(found), strict=True):
        typer.echo(json.dumps(asdict(one), sort_keys=True) if as_json else printable(line))
    if any(one.level == Level.FAIL for one in found):
        raise typer.Exit(FAILURE)
