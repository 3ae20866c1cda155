"""The command that serves the kill switch and the state of a ledger over HTTP."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Annotated

import typer

from rsi_ray import oversight
from rsi_ray.console.door import Door
from rsi_ray.console.rules import check_host
from rsi_ray.console.server import application, serve_at
from rsi_ray.console.switch import RemoteSwitch
from rsi_ray.errors import RunError
from rsi_ray.ledgers import RUNS
from rsi_ray.oversight import Storage, Url, ledger_url
from rsi_ray.printable import printable
from safety.database import state_folder
from safety.errors import LedgerUnavailable
from safety.token import TOKEN_FILE, token_in

PORT = 8280

Host = Annotated[str, typer.Option(help="address to listen at")]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="port to listen at; 0 for a free one")]
Name = Annotated[list[str] | None, typer.Option(help="name by which the server is reached; several may be")]
AllowPublic = Annotated[bool, typer.Option("--allow-public", help="listen where others can reach it")]


@oversight.app.command()
def serve(
    ledger: Url = None,
    storage: Storage = Path(RUNS),
    host: Host = "127.0.0.1",
    port: Port = PORT,
    name: Name = None,
    allow_public: AllowPublic = False,
) -> None:
    """Serve `GET /status` and `POST /kill` to whoever shows the token that lies beside the ledger."""
    check_host(host, allow_public=allow_public)
    url = ledger_url(ledger, storage)
    folder = state_folder(url, storage)
    token = token_in(folder)
    switch = RemoteSwitch(url, storage)
    try:
        switch.open()
    except LedgerUnavailable as error:  # a kill must find somebody who takes it
        typer.echo(f"rsi-ray: {printable(str(error))}; it is tried again with each request", err=True)
    listening = _listening(host, port)
    number = listening.getsockname()[1]
    where = f"[{host}]" if ":" in host else host
    typer.echo(f"Listening at http://{where}:{number}, the token is in {folder / TOKEN_FILE}")
    try:
        door = Door()
        asyncio.run(serve_at(listening, application(switch, token, name or (), door), door))
    finally:
        switch.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # Python adds the address to the words of the system
        cause = str(error.strerror or error).partition(" (while")[0]
        raise RunError(f"serve: {host} port {port}: can't be listened at: {cause}") from None
