"""What an ask costs on a long study: one trial asked for and ten parameters suggested, in wall time.

`python -m bench.ask [--trials N] [--asks N] [--samplers NAME ...]`; in memory and on the journal file of a
sweep. A third of the trials were refused. The median, the 95th percentile and the worst; the first ask, which
reads the whole study, stands by itself. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from rsi_ray.journal import one_write
from rsi_ray.random_draws import random_config
from rsi_ray.samplers import SAMPLERS
from rsi_ray.study import open_study, trial_of
from search_spaces.space import Suggest

ASKS = 20


class TenParameters:
    """Four choices, three sizes and three real numbers."""

    def suggest(self, trial: Suggest) -> float:
        """Choose all ten; their sum is the score."""
        total = 0.0
        for place in range(4):
            total += "abcd".index(str(trial.suggest_categorical(f"choice_{place}", ("a", "b", "c", "d"))))
        for place in range(3):
            total += trial.suggest_int(f"size_{place}", 1, 64) / 64
            total += trial.suggest_float(f"real_{place}", 1e-4, 1.0, log=True)
        return total


def filled(count: int) -> list[FrozenTrial]:
    """Trials of a long study, a third of them refused."""
    rng, space = random.Random(0), TenParameters()
    trials = []
    for place in range(count):
        config = random_config(space, rng)
        record = {"config": config}
        if place % 3:
            trials.append(trial_of(space, config, TrialState.COMPLETE, [rng.random()], record))
            continue
        trial = trial_of(space, config, TrialState.PRUNED, None, record)
        over = {"max_params": 0.5}
        trials.append(create_trial(**_parts(trial), state=TrialState.PRUNED, constraints=over))
    return trials


def _parts(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "params": trial.params,
        "distributions": trial.distributions,
        "user_attrs": trial.user_attrs,
    }


def ask_ms(study: optuna.Study, asks: int) -> dict[str, float]:
    """Milliseconds of asks with their suggestions, each told before the next."""
    space, times = TenParameters(), []
    for _ in range(asks + 1):
        began = time.perf_counter()
        with one_write(study):
            trial = study.ask()
            score = space.suggest(trial)
        times.append(1000 * (time.perf_counter() - began))
        study.tell(trial, score)
    first, *others = times
    late = statistics.quantiles(others, n=20)[-1]
    return {"ms": statistics.median(others), "p95_ms": late, "worst_ms": max(others), "first_ms": first}


def row_of(name: str, trials: list[FrozenTrial], asks: int, folder: Path) -> dict[str, Any]:
    """A sampler's ask in memory and on a file."""
    memory = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](0))
    journal = open_study(folder / f"{name}.log", name, SAMPLERS[name](0))
    for study in (memory, journal):
        study.add_trials(trials)
    kinds = {"memory": ask_ms(memory, asks), "journal": ask_ms(journal, asks)}
    found = {f"{kind}_{what}": one for kind, times in kinds.items() for what, one in times.items()}
    return {"sampler": name, **{what: round(one, 1) for what, one in found.items()}}


def main() -> None:
    """Measure every sampler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="of the study")
    parser.add_argument("--asks", type=int, default=ASKS, help="that are timed")
    names = list(SAMPLERS)
    parser.add_argument("--samplers", nargs="+", choices=names, default=names, help="these alone")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials, rows = filled(given.trials), []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.samplers:
            rows.append(row_of(name, trials, given.asks, Path(folder)))
            print(
                "{sampler:10} {memory_ms:7} ms in memory, {journal_ms:7} ms on a journal".format(**rows[-1])
            )
    print(json.dumps({"rows": rows, "trials": given.trials}))


if __name__ == "__main__":
    main()
