"""Commands for whoever watches over a cluster: its kill switch."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rsi_ray.errors import RunError
from rsi_ray.ledgers import LEDGER_FILE, RUNS, sqlite_path
from rsi_ray.printable import printable
from safety import Ledger
from safety.database import state_folder
from safety.errors import CheckpointError, IdentityError, LedgerError, LedgerUnavailable
from safety.identity import KEY_FILE, identity_in
from safety.kill_file import NAME as KILL_FILE
from safety.kill_file import put
from safety.notary import Notary, NotaryThread
from safety.places import places_of

FAILURE = 1

Url = Annotated[
    str | None, typer.Option("--ledger", help="URL of the ledger; that of the storage if left out")
]
Storage = Annotated[Path, typer.Option(help="folder of all runs")]
Reason = Annotated[str, typer.Option(help="why; it is kept in the audit")]
Who = Annotated[str | None, typer.Option("--by", help="who decides; this user if left out")]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Governed architecture search on Ray.",
)
# where the commands are that load neither torch nor Ray; each is there once its module is imported
HOMES = {
    "approvals": "rsi_ray.approval_commands",
    "champion": "rsi_ray.champion_commands",
    "doctor": "rsi_ray.doctor_command",
    "incidents": "rsi_ray.incident_commands",
    "kill": "rsi_ray.oversight",
    "logs": "rsi_ray.job_commands",
    "unkill": "rsi_ray.oversight",
    "serve": "rsi_ray.console.command",
    "status": "rsi_ray.status_command",
    "stop": "rsi_ray.job_commands",
    "submit": "rsi_ray.job_commands",
}
# that a folder of checkpoints gets to take one
SIGN_SECONDS = 5.0


def ledger_url(url: str | None, storage: Path) -> str:
    """Where a ledger is that is there already: a new one would watch over nothing.

    Raises:
        RunError: there is none.
    """
    url = url or f"sqlite:///{storage / LEDGER_FILE}"
    path = sqlite_path(url)
    if path is not None and not path.is_file():
        raise RunError(f"ledger {path}: no such file; expected a run's ledger, by --ledger URL or --storage")
    return url


def this_user() -> str:
    """Who runs this; a number where nobody gave it a name: a container's user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


@contextmanager
def open_ledger(url: str | None, storage: Path) -> Iterator[Ledger]:
    """A ledger that is there already.

    Raises:
        RunError: there is none.
    """
    ledger = Ledger(ledger_url(url, storage))
    try:
        yield ledger
    finally:
        ledger.close()


def sign(ledger: Ledger, storage: Path) -> None:
    """Sign the audit's end, where this user may: a governor that is dead can't."""
    folder = state_folder(ledger.url, storage)
    if not (folder / KEY_FILE).exists():
        return
    try:
        identity = identity_in(folder)
        places = places_of(ledger.url, folder)
    except (IdentityError, CheckpointError) as error:
        typer.echo(f"rsi-ray: the audit is not signed now: {printable(str(error))}", err=True)
        return
    threads = [NotaryThread(Notary(ledger, identity, [place])) for place in places]
    for place, thread in zip(places, threads, strict=True):
        if not thread.close(SIGN_SECONDS):
            typer.echo(f"rsi-ray: the audit is not signed yet: {place.path} doesn't answer", err=True)


@app.command()
def kill(reason: Reason, ledger: Url = None, storage: Storage = Path(RUNS), by: Who = None) -> None:
    """Stop every sweep on a ledger, and let none begin until `unkill`."""
    who = by or this_user()
    try:
        with open_ledger(ledger, storage) as opened:
            held = opened.kill(reason, who)
            sign(opened, storage)
    except LedgerError as error:  # the kill must not be lost
        url = ledger_url(ledger, storage)
        if sqlite_path(url) is None and not isinstance(error, LedgerUnavailable):
            raise
        file = put(state_folder(url, storage), f"{reason} (by {who})")
        typer.echo(
            f"rsi-ray: {printable(str(error))}; the file {file} kills as soon as it can be written", err=True
        )
        raise typer.Exit(FAILURE) from None
    typer.echo(
        f"Killed: {held} leases are revoked; every worker is being ended, and nothing runs on "
        "this ledger until `rsi-ray unkill`"
    )


@app.command()
def unkill(reason: Reason, ledger: Url = None, storage: Storage = Path(RUNS), by: Who = None) -> None:
    """Lift the kill switch, if the approvers that the limits name agree; `run --resume` goes on."""
    with open_ledger(ledger, storage) as opened:
        standing = state_folder(opened.url, storage) / KILL_FILE
        if standing.exists():
            raise RunError(f"unkill: {standing} stands there and kills again; take it away first")
        try:
            lifted = opened.unkill(reason, by or this_user())
        finally:
            sign(opened, storage)
    typer.echo("Sweeps may run again" if lifted else "The kill switch was not thrown")
