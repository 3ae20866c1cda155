"""What a trial costs besides its training, by how many there are and how many run at a time.

`python -m bench.scale [--trials 10 100 1000 5000] [--concurrent 2 8 32 64]`; each trial makes three reports
and trains nothing. First so many trials, two at a time, then `--of` trials with so many at a time. Ours,
every gate on, ledger and study on disk, beside Ray Tune with OptunaSearch and reused actors, one after the
other in the same Ray, which has a processor for each trial at a time. Both draw at random: what a sampler
takes for itself is `bench.ask`'s. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterable
from typing import Any

import optuna
import ray

from bench.overhead import REPORTS, governed_ms, reuse_ms


def row(trials: int, concurrent: int) -> dict[str, Any]:
    """Both ways, in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        sampler = optuna.samplers.RandomSampler(seed=0)
        bare = reuse_ms(trials, folder, concurrent=concurrent, sampler=sampler)
        ours = governed_ms(trials, folder, concurrent=concurrent, sampler="random")
    found = {
        "trials": trials,
        "concurrent": concurrent,
        "ms_per_trial": round(ours, 1),
        "bare_ms_per_trial": round(bare, 1),
        "ms_per_report": round(ours / REPORTS, 1),
        "bare_ms_per_report": round(bare / REPORTS, 1),
    }
    print(json.dumps(found), flush=True)
    return found


def rows_of(asked: Iterable[tuple[int, int]]) -> list[dict[str, Any]]:
    """Rows of so many trials, so many at a time, on one Ray with as many processors as that takes."""
    asked = list(asked)
    if not asked:
        return []
    ray.init(
        address="local",
        num_cpus=max(concurrent for _, concurrent in asked),
        log_to_driver=False,
        logging_level=logging.ERROR,
        # dozens of workers that nobody asked for would start for minutes, beside what is measured
        _system_config={"prestart_worker_first_driver": False, "enable_worker_prestart": False},
    )
    row(10, 2)  # what both load, they load here
    found = [row(trials, concurrent) for trials, concurrent in asked]
    ray.shutdown()
    return found


def growth(rows: list[dict[str, Any]], name: str) -> float | None:
    """Cost of a trial where there are most of them, over that at 100; None where 100 were not measured."""
    by_trials = {row["trials"]: row[name] for row in rows}
    return round(by_trials[max(by_trials)] / by_trials[100], 2) if 100 in by_trials else None


def main() -> None:
    """Measure all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="*", default=[10, 100, 1000, 5000])
    parser.add_argument("--concurrent", type=int, nargs="*", default=[2, 8, 32, 64])
    parser.add_argument("--of", type=int, default=500, help="trials of each row of --concurrent")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    by_trials = rows_of((trials, 2) for trials in asked.trials)
    by_concurrent = [one for count in asked.concurrent for one in rows_of([(asked.of, count)])]
    told = {name: growth(by_trials, name) for name in ("ms_per_trial", "bare_ms_per_trial")}
    print(json.dumps({"growth_from_100": told, "rows": [*by_trials, *by_concurrent]}))


if __name__ == "__main__":
    main()
