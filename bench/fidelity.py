"""What early stopping saves: epochs to a top configuration, ASHA under our scheduler and full training.

`python -m bench.fidelity [--full]` looks up learning curves of 500 configurations on four tasks of LCBench.
Trials are real Tune trials, the scheduler is the one that a sweep uses, over a real governor and ledger;
workers are simulated: each trains one epoch a tick. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from rsi_ray.schedulers import SchedulerOptions, scheduler_of
from safety import Claim, Governor, Ledger, Measured, limits_from_dict, request_digest
from safety.governance import told
from safety.tune import Governance, GovernedScheduler

TABLE = Path(__file__).parents[2] / "shared" / "data" / "lcbench_curves.parquet"
EPOCHS = 52
WORKERS = 4
GRACE_PERIOD = SchedulerOptions(reports=EPOCHS).grace_period
TOP = 0.02
CLAIM = Claim(
    params=1, forward_flops=2, memory_bytes=3, train_flops=EPOCHS * 10**9, wall_ms=60_000, reports=EPOCHS
)
LIMITS = {"bounds": {"max_params": 10, "max_flops": 10, "max_memory": 10}}


@dataclass
class Running:
    """A trial that trains."""

    trial: Trial
    grant: Any
    epoch: int = 0


def epochs_to_top(
    curves: Mapping[int, Sequence[float]],
    order: Sequence[int],
    top: float,
    scheduler: TrialScheduler,
    governor: Governor,
    sweep: str,
) -> float:
    """Epochs of all trials together until one with a final accuracy of `top` was trained to its end.

    Args:
        curves: accuracy after each epoch, by configuration.
        order: configurations as they are proposed.
        top: final accuracy that counts.
        scheduler: the inner one.
        governor: admits every trial.
        sweep: a name that the ledger doesn't know yet.

    Returns:
        The epochs; infinity where every one of that kind was stopped early.
    """
    governor.open_sweep(sweep, limits_from_dict(LIMITS))
    governance = Governance(authority=governor, sweep=sweep, price=lambda _config: CLAIM)
    governed = GovernedScheduler(scheduler, governance)
    governed.set_search_properties("score", "max")
    waiting, spent = list(order), 0
    running: list[Running] = []
    while waiting or running:
        while waiting and len(running) < WORKERS:
            running.append(_begin(waiting.pop(0), governed, governance, governor))
        for one in list(running):
            spent += 1
            result = _epoch(one, curves[one.trial.config["cfg"]])
            ended = _judged(one, result, governed)
            if ended:
                running.remove(one)
            if one.epoch == EPOCHS and result["score"] >= top:
                governor.close_sweep(sweep, {})
                return spent
    return math.inf


def _begin(cfg: int, governed: GovernedScheduler, governance: Governance, governor: Governor) -> Running:
    trial = Trial("lookup", stub=True, config={"cfg": cfg}, trial_id=f"t{cfg}")
    governed.on_trial_add(None, trial)
    digest = request_digest(trial.config)
    measured = Measured(params=CLAIM.params, forward_flops=CLAIM.forward_flops)
    grant = governor.activate(governance.key(trial.trial_id), digest, "bench", measured)
    return Running(trial=trial, grant=grant)


def _epoch(one: Running, curve: Sequence[float]) -> dict[str, Any]:
    one.epoch += 1
    usage = one.grant.used(reports=one.epoch, elapsed_ms=one.epoch)
    lease = told(one.grant, usage)
    return {"score": curve[one.epoch - 1], "training_iteration": one.epoch, **lease}


def _judged(one: Running, result: dict[str, Any], governed: GovernedScheduler) -> bool:
    """Whether the trial ends: trained to its end, or stopped by the scheduler."""
    if one.epoch < EPOCHS and governed.on_trial_result(None, one.trial, result) == TrialScheduler.CONTINUE:
        return False
    governed.on_trial_complete(None, one.trial, result)
    return True


def row_of(task: str, table: pd.DataFrame, seeds: int, grace_period: int) -> dict[str, Any]:
    """Median epochs of both ways on one task, and their ratio."""
    own = table[table["task"] == task].sort_values("epoch")
    curves = {int(str(cfg)): list(group["val_acc"]) for cfg, group in own.groupby("cfg")}
    top = float(own[own["epoch"] == EPOCHS]["val_acc"].quantile(1 - TOP))
    options = SchedulerOptions(reports=EPOCHS, grace_period=grace_period)
    found: dict[str, list[float]] = {"fifo": [], "asha": []}
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        governor = Governor(ledger)
        for seed in range(seeds):
            order = random.Random(seed).sample(sorted(curves), len(curves))
            for name, epochs in found.items():
                inner = scheduler_of(name, options)
                epochs.append(epochs_to_top(curves, order, top, inner, governor, f"{name}-{seed}"))
        ledger.close()
    full, asha = (statistics.median(found[name]) for name in ("fifo", "asha"))
    never = sum(math.isinf(epochs) for epochs in found["asha"])
    # JSON knows no infinity
    told = None if math.isinf(asha) else asha
    return {"task": task, "speedup": round(full / asha, 2), "full": full, "asha": told, "never": never}


def main() -> None:
    """Measure every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="20 seeds instead of 5")
    parser.add_argument("--grace-period", type=int, default=GRACE_PERIOD, help="epochs of every trial")
    given = parser.parse_args()
    if not TABLE.exists():
        print(f"bench.fidelity: {TABLE.name} is missing, expected in {TABLE.parent}", file=sys.stderr)
        sys.exit(2)
    table = pd.read_parquet(TABLE)
    rows = []
    for task in sorted(table["task"].unique()):
        rows.append(row_of(str(task), table, 20 if given.full else 5, given.grace_period))
        print("task {task}: full {full} epochs, ASHA {asha}, {speedup} times fewer".format(**rows[-1]))
    print(json.dumps({"rows": rows, "grace_period": given.grace_period, "seeds": 20 if given.full else 5}))


if __name__ == "__main__":
    main()
