"""A task that every training of inherited weights gets better at, and loops on it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsi_ray import Sweep, loop_command
from rsi_ray.approvers import Policy, PolicyApprover, Signer, local_signer
from rsi_ray.cli import main
from rsi_ray.oversight import this_user
from rsi_ray.proposal import Proposal
from rsi_ray.recursion import Outcome, Recursion, run_recursion
from rsi_ray.tasks.task import Batch
from rsi_ray.train import Training
from safety import Decision, Ledger
from safety.approval import Request
from search_spaces.inheritance import Inheritance
from search_spaces.space import Sample, Suggest

SAMPLES = 20_000
# what a loop of the runaway gains: 0.01, 0.02, 0.04
LEVELS = (0.5, 0.51, 0.53, 0.57, 0.58, 0.59, 0.6)
ANY_GAIN = Policy(max_improvement=10, lifts_holds=True, needs_sealed_data=False)


class Threshold(nn.Module):
    """Says yes to every number below its threshold; the wider one begins with a bit more."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.height = nn.Parameter(torch.full((1,), 0.2))
        self.extra = nn.Linear(1, width)
        self.bonus = 0.002 * width

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = inputs["yes"]
        above = (self.height + self.bonus - x) * 10
        seen = self.extra(x).sum(-1, keepdim=True) * 1e-6
        return {"yes": torch.cat([-above, above + seen], dim=-1)}


class RisingSpace:
    """Widths; a child takes over its parent's threshold, whatever the widths."""

    def suggest(self, trial: Suggest) -> int:
        return trial.suggest_int("width", 1, 6)

    def samples(self) -> Mapping[str, Sample]:
        return {"yes": Sample(shape=(1,), dtype="float32")}

    def build(self, spec: int) -> nn.Module:
        return Threshold(spec)

    def relation(self, old: int, new: int) -> Inheritance:
        return Inheritance(kind="closest" if new >= old else "partial", reasons=("extra: is fresh",))

    def inherit(
        self, old: int, parent: Mapping[str, Tensor], new: int, fresh: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor]:
        return {**{name: tensor.double() for name, tensor in fresh.items()}, "height": parent["height"]}


@dataclass(frozen=True, kw_only=True)
class Head:
    name: str = "yes"


class RisingTask:
    """The answer is yes to every number; the score is the threshold, which each training raises alike.

    Where a file `hold-batch` (`hold-sealed`) is in the folder, whoever draws a batch (reads the sealed part)
    waits, and says so in a file, once as many have passed as the file says.
    """

    def __init__(self, folder: str = "") -> None:
        self.heads = (Head(),)
        self.holdout_size = SAMPLES
        self.digest = "0" * 64
        self._folder = Path(folder) if folder else None

    def batch(self, rng: np.random.Generator, size: int) -> dict[str, Batch]:
        self._wait("batch")
        return _batch(rng.random(size))

    def holdout(self) -> dict[str, Batch]:
        return self._scored(0.25)

    def sealed(self) -> dict[str, Batch]:
        self._wait("sealed")
        return self._scored(0.75)

    def _scored(self, offset: float) -> dict[str, Batch]:
        return _batch((np.arange(SAMPLES) + offset) / SAMPLES)

    def _wait(self, where: str) -> None:
        if self._folder is None:
            return
        hold = self._folder / f"hold-{where}"
        while hold.exists():
            left = int(hold.read_text())
            if left:
                hold.write_text(str(left - 1))
                return
            (self._folder / f"in-{where}").touch()
            time.sleep(0.05)


class LevelledTask(RisingTask):
    """Whatever the model, it scores what the level that is written in a file says."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._level = Path(folder) / "level"

    def _scored(self, offset: float) -> dict[str, Batch]:
        level = int(self._level.read_text()) if self._level.exists() else 0
        below = round(LEVELS[level] * SAMPLES)
        return _batch(np.repeat([0.0, 9.0], [below, SAMPLES - below]))


def _batch(numbers: Any) -> dict[str, Batch]:
    inputs = np.asarray(numbers, dtype=np.float32)[:, None]
    return {"yes": Batch(inputs=inputs, targets=np.ones(len(inputs), dtype=np.int64))}


# --- loops from Python


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
