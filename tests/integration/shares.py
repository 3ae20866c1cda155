"""Sweeps whose candidates ask for shares of two GPUs; a program, since it needs a Ray with GPUs.

`python -m tests.integration.shares FOLDER BYTES...` trains four candidates that claim once to four times so
many bytes each, and prints (bytes, GPU time, who trained) of every lease by BYTES, as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.tune.schedulers import FIFOScheduler

from rsi_ray.placement import Resources
from rsi_ray.plan import Plan
from rsi_ray.samplers import SAMPLERS
from rsi_ray.sweep import run_sweep
from safety import Claim, Ledger, limits_from_dict
from tests.integration.jobs import REPORTS, BehavingJob, WidthSpace

GPU = 8 * 10**9
WIDTHS = 4


@dataclass(frozen=True, kw_only=True)
class SharingJob(BehavingJob):
    """Claims so many bytes for each unit of width."""

    bytes_a_unit: int
    space: WidthSpace = field(default_factory=lambda: WidthSpace(widths=(1, WIDTHS)))

    def price(self, config: Mapping[str, Any]) -> Claim:
        claim = super().price(config)
        memory = config["width"] * self.bytes_a_unit
        placement = Resources(gpus="auto", gpu_memory=GPU).placement(memory)
        return replace(claim, memory_bytes=memory, gpu_ms=int(claim.wall_ms * placement.gpus))


def trained(folder: Path, bytes_a_unit: int) -> list[tuple[int, int, str]]:
    """Bytes, GPU time in ms and holder of each lease of a sweep of all widths."""
    job = SharingJob(bytes_a_unit=bytes_a_unit)
    plan = Plan(
        name=f"of-{bytes_a_unit}",
        folder=folder / str(bytes_a_unit),
        ledger_url=f"sqlite:///{folder}/ledger.db",
        limits=limits_from_dict({"bounds": {"max_params": 1e6, "max_flops": 1e9, "max_memory": 1e12}}),
        space=job,
        job=job,
        sampler=SAMPLERS["random"](0),
        reports=REPORTS,
        trials=WIDTHS,
        scheduler=FIFOScheduler,
        resources=Resources(gpus="auto", gpu_memory=GPU),
    )
    run_sweep(plan)
    ledger = Ledger(plan.ledger_url)
    with ledger._transaction() as connection:
        rows = connection.exec_driver_sql(
            "SELECT claim, holder FROM leases WHERE sweep = ? AND state = 'settled'", (plan.name,)
        ).all()
    ledger.close()
    claims = [(json.loads(claim), holder) for claim, holder in rows]
    return [(claim["memory_bytes"], claim["gpu_ms"], holder) for claim, holder in claims]


def main(folder: str, *sizes: str) -> None:
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    variables = {"PYTHONPATH": str(Path(__file__).parents[2])}
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,
        runtime_env={"env_vars": variables},
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    print(json.dumps({size: trained(Path(folder), int(size)) for size in sizes}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
