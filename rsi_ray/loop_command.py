"""The recursive loop on the command line: who decides, what is shown, the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from rsi_ray.approvers import (
    KEY_FILE,
    Approver,
    Nobody,
    Policy,
    PolicyApprover,
    Signer,
    local_signer,
    named_signer,
    policy_from_yaml,
)
from rsi_ray.config import SweepConfig
from rsi_ray.config_sections import RecursionConfig
from rsi_ray.errors import SweepError
from rsi_ray.log_tail import log_tail
from rsi_ray.loop import Why
from rsi_ray.loop_view import at_terminal, showing, table_of_generations, telling, whoever_is_here
from rsi_ray.oversight import this_user
from rsi_ray.recursion import Outcome, Recursion, run_recursion
from rsi_ray.view import watching
from rsi_ray.wiring import describe_space, limits_of, sweep_of

FAILURE, WAITS, INTERRUPTED = 1, 3, 130
DONE = (Why.COMPLETE, Why.CONVERGED, Why.REJECTED)
# for people to decide, or for time
WAITING = (Why.WAITS, Why.HELD)


class Approve(StrEnum):
    """Who decides of a promotion."""

    ASK = "ask"
    POLICY = "policy"
    WAIT = "wait"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says of the loop.

    Attributes:
        approve: who decides; None for ask on a terminal, and wait elsewhere.
        policy: file of a policy.
        key: file of the approver's private key.
        generations: champions that may follow one another.
    """

    approve: Approve | None = None
    policy: Path | None = None
    key: Path | None = None
    generations: int | None = None


def run(
    config: SweepConfig, asked: Asked, console: Console, *, resume: str | None, about: Mapping[str, Any]
) -> int:
    """Run the loop that a file asks for; the exit code.

    Raises:
        SweepError: it can't run as asked for.
        SafetyError: the governor or its ledger is at fault.
    """
    section = config.recursion or RecursionConfig()
    if config.baseline is None:
        raise SweepError(
            "baseline: missing; expected the parameters of the base model, from which the loop begins"
        )
    signer, key = _signer(config, asked)
    with log_tail() as tail:
        recursion = Recursion(
            sweep=sweep_of(config),
            base=config.baseline,
            generations=asked.generations or section.generations,
            seeds=section.seeds,
            approver=_approver(section, asked, signer, console),
            signer=signer,
            key=str(key),
            space=describe_space(config),
            proxies=section.screening,
            train_on=section.train_on,
            watching=partial(watching, console, dashboard=False),
            tell=telling(console),
            log=tail.lines,
            about={"config": config.model_dump(mode="json"), **about},
        )
        outcome = run_recursion(recursion, resume=resume)
    _show(outcome, console)
    return _exit_code(outcome)


def _signer(config: SweepConfig, asked: Asked) -> tuple[Signer | None, Path]:
    """Who signs here, and by which file; nobody, where the limits name others and no key is given."""
    limits, storage = limits_of(config), Path(config.storage).expanduser()
    if limits.approval.is_named:
        return (named_signer(limits, asked.key), asked.key) if asked.key else (None, Path("FILE"))
    if asked.key:
        raise SweepError("key: the limits name no approvers; leave it out, and this storage's own key signs")
    return local_signer(storage, this_user()), storage / KEY_FILE


def _approver(section: RecursionConfig, asked: Asked, signer: Signer | None, console: Console) -> Approver:
    if asked.approve is Approve.WAIT or (asked.approve is None and signer is None):
        return Nobody()
    if signer is None:
        raise SweepError(f"approve: {asked.approve} needs --key, the key of an approver whom the limits name")
    if asked.approve is None:
        return whoever_is_here(signer, console)
    if asked.approve is Approve.ASK:
        return at_terminal(signer, console)
    return PolicyApprover(signer=signer, policy=_policy(section, asked), show=showing(console))


def _policy(section: RecursionConfig, asked: Asked) -> Policy:
    if asked.policy:
        return policy_from_yaml(asked.policy)
    if section.policy is None:
        raise SweepError("policy: missing; expected --policy FILE, or a section `policy` under `recursion`")
    return section.policy


def _show(outcome: Outcome, console: Console) -> None:
    console.print()
    console.print(table_of_generations(outcome.champions, outcome.params))
    for line in (f"Run:      {outcome.folder.name}", f"Champion: {outcome.artifact or 'none'}"):
        console.print(Text(line), soft_wrap=True)


def _exit_code(outcome: Outcome) -> int:
    if outcome.ending.text.startswith("interrupted"):
        return INTERRUPTED
    if outcome.ending.why in WAITING:
        return WAITS
    return 0 if outcome.ending.why in DONE else FAILURE
