"""Loops on the task that every training of inherited weights gets better at."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsi_ray import Sweep, loop_command
from rsi_ray.approvers import Policy, PolicyApprover, Signer, local_signer
from rsi_ray.cli import main
from rsi_ray.oversight import this_user
from rsi_ray.proposal import Proposal
from rsi_ray.recursion import Outcome, Recursion, run_recursion
from rsi_ray.training import Training
from safety import Decision, Ledger
from safety.approval import Request
from tests.integration.rising_task import LevelledTask, RisingSpace, RisingTask

ANY_GAIN = Policy(max_improvement=10, lifts_holds=True, needs_sealed_data=False)


BOUNDS = {"max_params": 1000, "max_flops": 1e9, "max_memory": 1e9, "max_performance": {"yes": 0.99}}
LIMITS: dict[str, Any] = {"bounds": BOUNDS, "min_improvement": 0.01, "max_improvement_rate": 10}
TRAINING: dict[str, Any] = {
    "epochs": 1,
    "steps_per_epoch": 3,
    "batch_size": 8,
    "learning_rate": 0.02,
    "schedule": "constant",
    "warmup_steps": 0,
}


def recursion(folder: Path, **changes: Any) -> Recursion:
    """A loop in a folder of its own; what is said by `changes` is another."""
    storage = folder / "rsi_results"
    signer = local_signer(storage, this_user())
    task: Any = changes.pop("task", RisingTask())
    sweep = Sweep(
        RisingSpace(), task, changes.pop("limits", LIMITS), name="rising", lineage="line", storage=storage,
        training=Training(**TRAINING), sampler="random", scheduler="fifo", trials=2, concurrent=1,
        trial_seconds=60, alerts=changes.pop("alerts", {}),
    )  # fmt: skip
    approver = PolicyApprover(signer=signer, policy=ANY_GAIN, show=lambda _line: None)
    given: dict[str, Any] = {"generations": 2, "seeds": 1, "approver": approver, "signer": signer}
    return Recursion(sweep=sweep, base={"width": 2}, **{**given, **changes})


@dataclass(frozen=True)
class Raising:
    """Approves by a policy, and lets the level rise with each promotion that it has approved."""

    inner: PolicyApprover
    folder: Path

    def decide(self, request: Request, proposal: Proposal) -> Decision | None:
        (self.folder / "level").write_text(str(proposal.generation + 1))
        return self.inner.decide(request, proposal)


@dataclass(frozen=True)
class DyingApprover:
    """Writes its approval down, and dies before anybody hears of it."""

    signer: Signer
    ledger: str

    def decide(self, request: Request, proposal: Proposal) -> Decision | None:
        del proposal
        Ledger(self.ledger).decide(self.signer.sign(request, "approve", "seen"))
        die()
        return None


def die() -> list[str]:
    """End this process as a power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def run_away(folder: Path, *, alerts: Mapping[str, Any], **changes: Any) -> Outcome:
    """A loop whose third generation gains too fast, from its base on."""
    (folder / "level").write_text("0")
    loop = recursion(folder, task=LevelledTask(str(folder)), alerts=alerts, generations=4, seeds=0, **changes)
    # one candidate is looked at: the more there are, the surer an improvement must be
    loop.sweep.keep_weights = 1
    loop.tell = _raise_at_the_base(folder, loop.tell)
    loop.approver = Raising(loop.approver, folder)  # type: ignore[arg-type]
    return run_recursion(loop)


def _raise_at_the_base(folder: Path, tell: Any) -> Any:
    def told(event: Any) -> None:
        if event.kind == "searching" and event.champion.generation == 0:
            (folder / "level").write_text("1")
        tell(event)

    return told


def resume_and_die(run: str) -> None:
    """Go on with a run, and die right after its next promotion was approved."""

    def approver(_section: Any, _asked: Any, signer: Signer, _console: Any) -> DyingApprover:
        return DyingApprover(signer, f"sqlite:///{Path.cwd()}/rsi_results/ledger.db")

    loop_command._approver = approver  # type: ignore[assignment]
    sys.argv = ["rsi-ray", "run", "--resume", run]
    main()


def _main(what: str, which: str, alerts: str = "{}") -> None:
    if what == "resume-and-die":
        resume_and_die(which)
    else:
        run_away(Path(which), alerts=json.loads(alerts), log=die)


if __name__ == "__main__":
    _main(*sys.argv[1:])
