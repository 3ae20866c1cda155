"""The command that looks a cluster over before anything runs on it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from rsi_ray.doctor import Level, findings, lines
from rsi_ray.ledgers import LEDGER_FILE, RUNS, from_anywhere
from rsi_ray.oversight import Storage, Url, app
from rsi_ray.printable import printable
from rsi_ray.versions import versions_here
from safety import system_clock

FAILURE = 1

Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster, HOST:PORT or auto; RAY_ADDRESS, or one of its own, if left out"),
]


@app.command()
def doctor(
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster, HOST:PORT or auto; RAY_ADDRESS, or one of its own, if left out"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object per line")] = False,
) -> None:
    """Look a cluster over, from its head, before anything runs on it: a line each, with what to do.

    Exit code 1 where something must be mended first.
    """
    if address:
        os.environ["RAY_ADDRESS"] = address
    url = from_anywhere(ledger or f"sqlite:///{storage / LEDGER_FILE}")
    look = import_module("rsi_ray.examination")
    with import_module("rsi_ray.connection").local_ray() as dashboard:
        found = findings(
            look.nodes(storage.absolute()),
            look.access(dashboard),
            look.watch(url, storage),
            versions_here(),
            system_clock().wall_ms(),
        )
    told = (
        (json.dumps(asdict(one), sort_keys=True) for one in found)
        if as_json
        else map(printable, lines(found))
    )
    for line in told:
        typer.echo(line)
    if any(one.level == Level.FAIL for one in found):
        raise typer.Exit(FAILURE)
