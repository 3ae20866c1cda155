"""Commands for approvals: what waits for people, and what they decide."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rsi_ray.ledgers import RUNS
from rsi_ray.oversight import Reason, Storage, Url, app, open_ledger, sign, this_user
from rsi_ray.printable import printable
from rsi_ray.proposal import from_json, lines_of
from safety import Allow, Hold, Ledger, Verdict
from safety.approval import Answer, decide
from safety.approvals import Asked
from safety.identity import identity_of, make_identity
from safety.latch import readable
from safety.limits import Limits
from safety.report import utc
from safety.tightening import changed_fields, fields_of, looser_fields

approvals = typer.Typer(no_args_is_help=True, help="What waits for people's approval, and what they decide.")
app.add_typer(approvals, name="approvals")

Name = Annotated[str, typer.Argument(help="request, by the beginning of its digest")]
Key = Annotated[Path, typer.Option(help="file of the approver's private key")]
AsJson = Annotated[bool, typer.Option("--json", help="a JSON object per request")]


@approvals.command()
def key(out: Annotated[Path, typer.Option(help="new file for the private key")]) -> None:
    """Make an approver's key; what is printed goes into the limits, under `approval.approvers`."""
    identity = make_identity(out)
    typer.echo(identity.public)


@approvals.command("list")
def list_requests(ledger: Url = None, storage: Storage = Path(RUNS), as_json: AsJson = False) -> None:
    """Print every request, the newest last, and how it stands."""
    with open_ledger(ledger, storage) as opened:
        requests = opened.requests()
    for asked, verdict in requests:
        typer.echo(_json(asked, verdict) if as_json else _line(asked, verdict))
    if not (requests or as_json):
        typer.echo("Nothing was asked for")


@approvals.command()
def show(request: Name, ledger: Url = None, storage: Storage = Path(RUNS), as_json: AsJson = False) -> None:
    """Print what a request is for, who asks, and who has decided what."""
    with open_ledger(ledger, storage) as opened:
        asked, verdict = opened.request(request)
        in_force = opened.versions()
    if as_json:
        typer.echo(_json(asked, verdict))
        return
    typer.echo(_line(asked, verdict))
    before = in_force[-1].parsed if in_force and in_force[-1].digest == asked.request.act.parent else None
    typer.echo("\n".join(_details(asked, before)))


@approvals.command()
def approve(
    request: Name, reason: Reason, key: Key, ledger: Url = None, storage: Storage = Path(RUNS)
) -> None:
    """Approve a request; who asked for it then tries again."""
    _decide(request, "approve", reason, key, ledger, storage)


@approvals.command()
def reject(
    request: Name, reason: Reason, key: Key, ledger: Url = None, storage: Storage = Path(RUNS)
) -> None:
    """Reject a request, whoever has approved it."""
    _decide(request, "reject", reason, key, ledger, storage)


def _decide(request: str, answer: Answer, reason: str, key: Path, url: str | None, storage: Path) -> None:
    identity = identity_of(key)
    with open_ledger(url, storage) as opened:
        asked, _ = opened.request(request)
        name = _name_of(opened, asked, identity.public)
        decision = decide(asked.request.digest, answer, name, readable(reason), identity)
        try:
            opened.decide(decision)
        finally:
            sign(opened, storage)
        typer.echo(_line(*opened.request(asked.request.digest)))


def _name_of(ledger: Ledger, asked: Asked, public: str) -> str:
    """Name of the approver with this key; this user's where there is none, which the ledger refuses."""
    keys = ledger.approval(asked.request.act.sweep).keys
    return next((name for name, known in keys.items() if known == public), "") or this_user()


# --- what is printed


def _line(asked: Asked, verdict: Verdict) -> str:
    request = asked.request
    answers = ", ".join(f"{one.by} {one.answer}s" for one in asked.decisions) or "nobody has decided"
    return printable(
        f"{request.name} {request.act.kind}: {_state(asked, verdict)}; "
        f"asked by {request.by} {utc(request.at_ms)}, open until {utc(request.expires_ms)}; {answers}"
    )


def _state(asked: Asked, verdict: Verdict) -> str:
    if asked.used_for:
        return f"approved, and used for {asked.used_for}"
    if isinstance(verdict, Allow):
        return "approved"
    return "waits" if isinstance(verdict, Hold) else verdict.rule.removeprefix("approval.")


def _details(asked: Asked, before: Limits | None) -> list[str]:
    act = asked.request.act
    lines = [f"  {name}: {value}" for name, value in asdict(act).items() if value]
    if act.kind == "loosen" and asked.request.shows_its_subject:
        lines += _changes(before, Limits.model_validate_json(asked.request.about))
    elif act.kind == "promote" and (proposal := from_json(asked.request.about)):
        lines += [f"  {line}" for line in lines_of(proposal)]
    else:
        lines.append(f"  about: {asked.request.about}")
    lines += [f"  {one.by} {one.answer}s: {one.reason}" for one in asked.decisions]
    return [printable(line) for line in lines]


def _changes(before: Limits | None, wanted: Limits) -> list[str]:
    """Each field that limits change, where those in force are the ones that they would follow."""
    if before is None:
        return ["  the limits in force are no longer those that these would follow"]
    old, new, looser = fields_of(before), fields_of(wanted), looser_fields(before, wanted)
    return [
        f"  {name}: {old[name]} becomes {new[name]}, "
        f"{'looser' if any(field.startswith(name) for field in looser) else 'tighter'}"
        for name in changed_fields(before, wanted)
    ]


def _json(asked: Asked, verdict: Verdict) -> str:
    told: dict[str, Any] = {"digest": asked.request.digest, **asdict(asked), "state": _state(asked, verdict)}
    return json.dumps(told, sort_keys=True)
